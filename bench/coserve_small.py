"""The small figures of co-serving: what a decision takes, and how far from the best schedule tiny cases end."""

import itertools
import time
from typing import Final

from bench.coserve_runs import laws
from bench.figures import Figure, rounded
from planner.domain import Role, Shape
from planner.run.orders import DispatchConfig, Instance, Job, Kind, Running, View
from planner.run.policies import make
from planner.sim.coserve.fleet import Gpu
from planner.sim.coserve.laws import STAGES
from planner.sim.coserve.workload import Arrival
from planner.sim.coserve.world import CoWorld
from planner.sim.rng import Rng

PENDING: Final = 200
GPUS: Final = 64
DECISIONS: Final = 200
TINY: Final = 40
SHAPES: Final = (("sd35", Shape(512, 512, 1, 28)), ("sd35", Shape(1024, 1024, 1, 28)), ("wan1b", Shape(832, 480, 33, 50)),
                 ("wan1b", Shape(832, 480, 81, 50)))  # fmt: skip


def crowd(rng: Rng, now: float) -> View:
    """64 GPUs, most of them busy, and 200 requests that wait, with deadlines of all kinds."""
    roles = frozenset(Role(model, stage) for model in ("sd35", "wan1b") for stage in STAGES)
    running, instances, pending = [], [], []
    for index in range(GPUS):
        busy = index < GPUS - 4
        instances.append(Instance(f"g{index}", f"n{index // 8}", "H100", roles, int(not busy), (1,), True, 79.1))
        if busy:
            running.append(Running(f"g{index}", (_job(rng, f"r{index}", index, now),), now))
    for index in range(PENDING):
        pending.append(_job(rng, f"p{index}", 1000 + index, now))
    return View(tuple(pending), tuple(running), tuple(instances))


def _job(rng: Rng, name: str, seq: int, now: float) -> Job:
    model, shape = SHAPES[int(rng.uniform() * len(SHAPES))]
    left = 1 + int(rng.uniform() * shape.steps)
    due = now + laws().isolated_s(model, shape) * 4 * rng.uniform()
    key = f"{model} {shape}" if left == shape.steps else ""
    return Job(
        name,
        Role(model, "denoise"),
        shape,
        now,
        seq,
        shape.steps,
        left,
        deadline_s=due,
        after=("decode",),
        batch_key=key,
    )


def decide_p99_ms(kind: Kind) -> Figure:
    """Processor milliseconds of a decision, 99th percentile: others on this machine do not count."""
    rng, times = Rng(7, kind), []
    policy = make(DispatchConfig(kind), laws())
    for index in range(DECISIONS):
        view = crowd(rng, 10.0 * index)
        began = time.process_time()
        policy.decide(view, 10.0 * index)
        times.append(time.process_time() - began)
    p99 = sorted(times)[int(0.99 * DECISIONS)]
    return Figure(f"decide_p99_ms_{kind}", rounded(1000 * p99), "ms", 50.0, "lower", f"{PENDING} pending, {GPUS} GPUs")


# --- tiny cases against every schedule -------------------------------------------------------------------------------


def worst_of_tiny(cases: int = TINY) -> Figure:
    """Mean latency of three requests at once on two GPUs, over that of the best of all schedules: mean over cases."""
    ratios = [tiny(seed) for seed in range(cases)]
    return Figure(
        "tiny_vs_exhaustive",
        rounded(sum(ratios) / len(ratios)),
        "x",
        1.05,
        "lower",
        f"{cases} cases; worst",
        rounded(max(ratios)),
    )


def tiny(seed: int) -> float:
    """Trident's mean latency over the least possible, all overheads left out of the latter."""
    rng = Rng(seed, "tiny")
    kinds = [SHAPES[int(rng.uniform() * len(SHAPES))] for _ in range(3)]
    roles = frozenset(Role(model, stage) for model in ("sd35", "wan1b") for stage in STAGES)
    gpus = [Gpu(f"g{index}", "n0", roles, 79.1, joins=True) for index in range(2)]
    rows = [Arrival(0.0, model, shape, 1e9, shape.frames > 1) for model, shape in kinds]
    world = CoWorld(rows, gpus, make(DispatchConfig("trident", batch=False), laws()), laws())
    return world.run().mean_s() / exhaustive(kinds)


def exhaustive(kinds: list[tuple[str, Shape]]) -> float:
    """Least mean latency over all orders and degrees of whole requests on two GPUs; a degree stays what it is.

    Each stage at its own degree (encoding and decoding on one GPU). Requests are put down in every order, each with every
    degree, on the GPUs that are free first.
    """
    best = float("inf")
    for order in itertools.permutations(kinds):
        for degrees in itertools.product((1, 2), repeat=len(kinds)):
            best = min(best, _mean_s(order, degrees))
    return best


def _mean_s(order: tuple[tuple[str, Shape], ...], degrees: tuple[int, ...]) -> float:
    free, total = [0.0, 0.0], 0.0
    for (model, shape), degree in zip(order, degrees, strict=True):
        encode, denoise, decode = (
            laws().stage_s(Role(model, stage), "", shape, degree if stage == "denoise" else 1) or 0.0
            for stage in STAGES
        )
        free.sort()
        if degree == 1:
            end = free[0] = free[0] + encode + denoise + decode
        else:
            spread = max(free[0] + encode, free[1]) + denoise
            free[:] = [spread + decode, spread]
            end = spread + decode
        total += end
    return total / len(order)
