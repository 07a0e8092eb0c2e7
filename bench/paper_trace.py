"""DisagFusion's trace, for real and simulated: ``python -m bench.paper_trace [--policy dynamic --policy static:1:6:1 …]``.

A quarter of an hour of 4-step requests, then 1-step ones (arXiv 2605.25550), on eight workers with a Wan2.2-like model's
times; here in a twentieth of the time, with the synthetic model in processes of their own behind the real head. The
simulator gets the same spec and the same arrivals. Prints JSON lines; exits 1 when the two differ or dynamic does not win.
"""

import argparse
import asyncio
import logging
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

import msgspec

from bench.figures import Figure, rounded
from bench.service import running
from disagctl.head import Head
from disagctl.service import NewJob
from disagctl.settings import use_fast_loop
from disagctl.simulation.setup import Wish, set_up
from disagctl.simulation.traces import as_csv
from disagctl.spec import parse_spec
from planner.domain import Shape
from planner.sim.baselines import run_static
from planner.sim.compare import POLICIES, run_policy
from planner.sim.scenario import Trace
from planner.sim.traces import paper

SCALE: Final = 20.0
WORKERS: Final = 8
STAGES: Final = ("encode", "denoise", "decode")
PER_MIN: Final = 5.5  # of the first shape, in the trace's own time
PHASE_S: Final = 900.0
STEP_S: Final = 63.0 / 4
SECONDS: Final = {"encode": 1.0, "decode": 13.0}
LOAD_S: Final = {"encode": 20.0, "denoise": 40.0, "decode": 10.0}
MARKS_S: Final = 300.0  # the two are compared this often
BAR: Final = 0.05  # of the run's requests
SETTLE_S: Final = 10.0
SHAPES: Final = (Shape(64, 64, 1, 4), Shape(64, 64, 1, 1))

SPEC: Final = """
name: paper-trace
model:
  id: synthetic
  stages:
    encode: {{seconds: {encode}, out_bytes: 65536, load_s: {load_encode}}}
    denoise: {{seconds_per_step: {step}, out_bytes: 65536, load_s: {load_denoise}}}
    decode: {{seconds: {decode}, artifact_bytes: 65536, load_s: {load_decode}}}
workload: {{rate: {rate}/min, shapes: [{{size: 64x64, steps: 4}}]}}
infra: local
policy: {{scaling: {mode}, workers: {workers}, interval: 250ms}}
"""


class Race(msgspec.Struct):
    """One policy: requests finished until each mark, in real processes and in the simulator."""

    name: str
    real: list[int]
    simulated: list[int]
    core_share: float
    tick_ms: float
    switch_s: list[float]

    @property
    def gap(self) -> float:
        """The largest difference, as a share of the run's requests."""
        worst = max(abs(one - other) for one, other in zip(self.real, self.simulated, strict=True))
        return worst / max(self.simulated[-1], 1)


def spec_text(policy: str) -> str:
    """The service; a static policy's ratio as fixed replicas."""
    text = SPEC.format(
        **{name: seconds / SCALE for name, seconds in SECONDS.items()},
        **{f"load_{name}": seconds / SCALE for name, seconds in LOAD_S.items()},
        step=STEP_S / SCALE, rate=PER_MIN * SCALE, mode=POLICIES.get(policy, "static"), workers=WORKERS,
    )  # fmt: skip
    if policy in POLICIES:
        return text
    pairs = zip(STAGES, policy.removeprefix("static:").split(":"), strict=True)
    return text + "stages: {" + ", ".join(f"{stage}: {{replicas: {count}}}" for stage, count in pairs) + "}\n"


def marks(finished_s: list[float], end_s: float) -> list[int]:
    """Requests finished by each mark."""
    step = MARKS_S / SCALE
    return [sum(at <= step * n for at in finished_s) for n in range(1, round(end_s / step) + 1)]


def simulate(policy: str, trace: Trace) -> list[float]:
    """When the simulator finishes requests."""
    with tempfile.TemporaryDirectory(prefix="disagctl-bench-") as folder:
        spec_path, trace_path = Path(folder) / "service.yaml", Path(folder) / "trace.csv"
        spec_path.write_text(spec_text(policy))
        trace_path.write_text(as_csv(trace))
        spec = parse_spec(spec_path.read_text(), base=Path(folder))
        scenario = set_up(spec, Wish(spec_path, str(trace_path), workers=WORKERS)).scenario
    policy_config = msgspec.structs.replace(scenario.policy, interval_s=spec.policy.interval_s)
    scenario = msgspec.structs.replace(scenario, end_s=2 * PHASE_S / SCALE, policy=policy_config)
    if policy in POLICIES:
        run = run_policy(scenario, policy, POLICIES[policy])[0]
    else:
        run = run_static(scenario, tuple(int(n) for n in policy.removeprefix("static:").split(":")))
    return [ended.at_s for ended in run.ended]


async def play(head: Head, trace: Trace) -> list[float]:
    """Send the trace's requests when they are due; when they were finished."""
    begin, end_s = head.engine.clock(), 2 * PHASE_S / SCALE
    sent = []
    for number, row in enumerate(trace.rows):
        await asyncio.sleep(max(0.0, begin + row.at_s - head.engine.clock()))
        params = {"prompt": "x", "width": 64, "height": 64, "num_inference_steps": row.shape.steps}
        sent.append(asyncio.ensure_future(head.submit(NewJob("image", head.models()[0].name, params, [number]))))
    await asyncio.gather(*sent)
    await asyncio.sleep(max(0.0, begin + end_s - head.engine.clock()))
    return [at - begin for at in head.finished_at if at - begin <= end_s]


async def race(policy: str, trace: Trace) -> Race:
    """Once for real, once simulated."""
    async with running(spec_text(policy)) as head:
        finished_s = await play(head, trace)
        loop = head.controller.view()
        switch_s = [seconds for times in head.load_watch.times.values() for seconds in times.switch_s]
        for event in head.events(0):
            if event.kind in ("scale", "switch", "worker_ready"):
                print(f"{policy}: {event.kind}: {event.why}", file=sys.stderr)
    end_s = 2 * PHASE_S / SCALE
    return Race(
        policy, marks(finished_s, end_s), marks(simulate(policy, trace), end_s), loop.core_share, loop.tick_ms, switch_s
    )


def figures(races: list[Race]) -> list[Figure]:
    """What there is to say."""
    found = []
    best = max((r.real[-1] for r in races if r.name.startswith("static")), default=0)
    for one in races:
        name = one.name.replace(":", "_")
        found.append(
            Figure(f"paper_{name}_requests", one.real[-1], "requests", None, "higher", "simulated", one.simulated[-1])
        )
        found.append(Figure(f"paper_{name}_sim_gap", rounded(one.gap), "of requests", BAR, "lower"))
        if one.name == "dynamic" and best:
            found.append(Figure("paper_dynamic_vs_static", rounded(one.real[-1] / best), "×", 1.0, "higher"))
            found.append(Figure("paper_loop_core", rounded(one.core_share), "cores", 0.01, "lower"))
            found.append(Figure("paper_tick_ms", rounded(one.tick_ms), "ms", 5.0, "lower"))
            if one.switch_s:
                slowest = SCALE * max(one.switch_s)
                found.append(Figure("paper_switch_s", rounded(slowest), "s of the trace", None, "lower"))
    return found


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m bench.paper_trace", description=__doc__)
    parser.add_argument("--policy", action="append", help="dynamic, reactive, predict, static:1:6:1 … (repeatable)")
    policies = parser.parse_args().policy or ["dynamic", "static:1:6:1", "static:1:5:2"]
    logging.basicConfig(level=logging.WARNING)
    use_fast_loop()
    trace = paper("synthetic", SHAPES, PER_MIN * SCALE, phase_s=PHASE_S / SCALE)
    races = []
    for policy in policies:
        begin = time.monotonic()
        races.append(asyncio.run(race(policy, trace)))
        said = msgspec.json.encode(races[-1]).decode()
        print(f"{said} ({time.monotonic() - begin:.0f} s)", file=sys.stderr)
    found = figures(races)
    for figure in found:
        print(figure.line(), flush=True)
    return 0 if all(figure.met for figure in found) else 1


if __name__ == "__main__":
    sys.exit(main())
