"""What a tick of the control loop costs at a thousand workers: ``python -m bench.policy_tick``. One JSON line a figure.

Three models of three stages, several shapes each, two types of accelerator; every tick brings arrivals and completions as busy
workers make them. ``policy_tick_ms`` is the 99th percentile of its processor time; ``policy_core_share`` is of one core, at the
policy's own interval.
"""

import statistics
import sys
import time

from bench.figures import Figure, rounded
from planner.domain import RequestClass, Role, Shape, Workload
from planner.run.config import PolicyConfig, RoleBounds
from planner.run.observe import Observer, RoleState, Room
from planner.run.policy import Policy
from planner.sim.rng import Rng

MODELS = ("wan", "qwen", "flux")
STAGES = ("encode", "denoise", "decode")
SHAPES = tuple(Shape(1280, 720, frames, steps) for frames in (1, 81) for steps in (1, 4, 8, 50))
WORKERS, TICKS = 1000, 400


def predict(role: Role, accelerator: str, shape: Shape) -> float:
    base = {"encode": 0.3, "denoise": 0.5 * shape.steps, "decode": 1.0}[role.stage]
    return base * (shape.frames**0.5) * (3.0 if accelerator == "L4" else 1.0)


def main() -> int:
    roles = [Role(model, stage) for model in MODELS for stage in STAGES]
    work = Workload(tuple(RequestClass(model, shape, 0.5, 120.0) for model in MODELS for shape in SHAPES))
    config = PolicyConfig(
        roles=tuple(RoleBounds(role) for role in roles),
        slo_p95_s=dict.fromkeys(MODELS, 120.0),
        workload=work,
        elastic=True,
    )
    policy, observer, rng = Policy(config, predict), Observer(), Rng(1)
    rooms = (Room("H100", WORKERS * 3 // 4), Room("L4", WORKERS // 4))
    counts = dict.fromkeys(roles, WORKERS // len(roles))
    ticks: list[float] = []
    now = 0.0
    for tick in range(TICKS):
        now += config.interval_s
        for _ in range(150):
            model, shape = MODELS[rng.bits() % 3], SHAPES[rng.bits() % (4 if tick < TICKS // 2 else 8)]
            observer.arrived(model, shape, now)
            for stage in STAGES:
                role = Role(model, stage)
                observer.assigned(role, shape)
                observer.completed(role, "H100", shape, rng.lognormal(predict(role, "H100", shape), 0.1))
        states = tuple(
            RoleState(role, counts[role], counts[role], int(counts[role] * 0.9), queued=20) for role in roles
        )
        seen = observer.take(states, rooms)
        begun = time.thread_time()
        for decision in policy.decide(seen, now):
            counts = dict(getattr(decision, "counts", counts))
        ticks.append(time.thread_time() - begun)
    ordered = sorted(ticks)
    p99 = ordered[int(0.99 * len(ordered))] * 1e3
    for figure in (
        Figure("policy_tick_ms", rounded(p99), "ms", 5.0, "lower"),
        Figure("policy_tick_median_ms", rounded(statistics.median(ticks) * 1e3), "ms", None, "lower"),
        Figure("policy_core_share", rounded(statistics.mean(ticks) / config.interval_s), "fraction", 0.01, "lower"),
    ):
        print(figure.line(), flush=True)
    return 0 if p99 <= 5.0 else 1


if __name__ == "__main__":
    sys.exit(main())
