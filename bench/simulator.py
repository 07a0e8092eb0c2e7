"""How much faster than life the simulator is: ``python -m bench.simulator``. One JSON line a figure.

A hundred workers in three stages, kept busy by Poisson arrivals at nine tenths of what they can carry, with the policy's ticks,
transfer times and noise, for a quarter of an hour of virtual time. Also: the same seed gives the same bytes.
"""

import hashlib
import sys
import time

import msgspec

from bench.control import ROLES, scenario, seconds
from bench.figures import Figure, rounded
from planner.sim.compare import run_policy
from planner.sim.rng import Rng
from planner.sim.scenario import Arriving, Noise, Scenario, Trace
from planner.sim.traces import VIDEO4, always, poisson

WORKERS, DURATION_S = 100, 1800.0


def busy(seed: int) -> Scenario:
    whole = sum(seconds(role, "H100", VIDEO4) for role in ROLES)
    rate = 0.9 * WORKERS / whole
    rows = poisson(DURATION_S, lambda _: rate, rate, always(VIDEO4), Rng(seed, "busy"))
    trace = Trace("busy", tuple(Arriving(at, "wan", shape) for at, shape in rows))
    noise = Noise(service_sigma=0.1, load_sigma=0.1, transfer_s=0.05, jitter_share=0.05, jitter_s=0.2)
    return msgspec.structs.replace(scenario(trace, workers=WORKERS), noise=noise, seed=seed)


def main() -> int:
    speeds, digests = [], set()
    for _ in range(3):
        made = busy(7)
        begun = time.perf_counter()
        run, _ = run_policy(made, "dynamic", "hybrid")
        speeds.append(DURATION_S / (time.perf_counter() - begun))
        digests.add(hashlib.sha256(msgspec.json.encode(run)).hexdigest())
    figures = [
        Figure("simulator_speed", rounded(max(speeds)), "times real time", 1000.0, "higher"),
        Figure("simulator_same_bytes", float(len(digests) == 1), "1 if the same", 1.0, "higher"),
    ]
    for figure in figures:
        print(figure.line(), flush=True)
    return 0 if all(figure.met for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
