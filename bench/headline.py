"""The paper's headline from published stage timings: ``python -m bench.headline [--table]``. One JSON line a figure.

DisagFusion (arXiv 2605.25550) claims 3.4–20.5 times the throughput of the whole pipeline on each GPU, and 18.5 times less
latency; LightX2V's blog 1.89 times (0.34 over 0.18 requests a second, Qwen-Image-2512 on eight RTX 4090). Simulated here on
the stage seconds that LightX2V published: whole pipelines where the weights must be offloaded to the host (``whole``) and were
they all resident (``resident``), against stages of their own. Closed load for throughput, open load for latency.

Each ratio is a product: what comes of *no offload* (resident over whole), of *splitting* (stages at an even ratio, one after
the other transferring and computing, over resident), of the *ratio* (the best one over the even one) and of *overlap*.
"""

import argparse
import sys
from collections.abc import Iterator

import msgspec

from bench.figures import Figure, rounded
from planner.domain import Role, Shape
from planner.run.config import PolicyConfig, RoleBounds
from planner.run.decisions import Reason, SetCounts
from planner.run.fleet import NodeWish
from planner.sim.baselines import candidates
from planner.sim.report import Run
from planner.sim.rng import Rng
from planner.sim.scenario import Arriving, Noise, Scenario, Trace, offer_of
from planner.sim.traces import always, poisson
from planner.sim.world import World

SHAPE = Shape(832, 480, 81, 4)
STAGES = ("encode", "denoise", "decode")
IN_FLIGHT = 6  # requests a GPU, closed load
LEAST_S = 3600.0
NOISE = Noise(
    transfer_s=0.025, jitter_share=0.05, jitter_s=0.2
)  # published: 24–25 ms a hand-over; the paper's mild jitter
BLOG, GUIDE = "LightX2V blog, Disaggregation (1ba565ee)", "LightX2V DisaggSplitDeploy.md (f8aee98b)"


class Case(msgspec.Struct, frozen=True):
    """Seconds of encode, denoise, decode. ``whole``: as measured with the whole pipeline on a GPU; ``split``: on their own.

    ``published``: requests a minute, and where from. Decode on the RTX 4090 is what the published end-to-end times leave.
    """

    name: str
    gpu: str
    whole: tuple[float, float, float]
    split: tuple[float, float, float]
    source: str
    published: tuple[tuple[int, float, str], ...] = ()


CASES = (
    Case(
        "qwen_8step", "RTX4090", (12.89, 23.2, 6.66), (0.4, 15.04, 2.91), f"{BLOG}; {GUIDE}",
        ((8, 0.34 * 60, "blog, 7T:1E"), (16, 43.7, "paper, figure 12c")),
    ),
    Case("wan_i2v_4step", "RTX4090", (5.73, 96.96, 6.76), (3.7, 76.08, 5.6), GUIDE, ((16, 10.5, "paper, figure 12b"),)),
    Case("wan_i2v_40step", "RTX4090", (5.73, 969.6, 6.76), (3.7, 760.8, 5.6), GUIDE),
    Case("qwen_50step", "H100", (0.26, 25.3, 0.31), (0.26, 25.3, 0.31), BLOG),
    Case("wan_i2v_4step", "H100", (3.17, 20.77, 2.22), (3.17, 20.77, 2.22), BLOG),
    Case("wan_i2v_40step", "H100", (3.17, 207.7, 2.22), (3.17, 207.7, 2.22), BLOG),
)  # fmt: skip


def scenario(times: tuple[float, ...], gpus: int, stages: tuple[str, ...] = STAGES, **more: object) -> Scenario:
    table = {Role("m", stage): seconds for stage, seconds in zip(stages, times, strict=True)}
    config = PolicyConfig(roles=tuple(RoleBounds(role) for role in table), mode="static")
    end_s = max(LEAST_S, 25 * sum(times))
    rows = tuple(Arriving(0.0, "m", SHAPE) for _ in range(int(gpus * (IN_FLIGHT + 2 * end_s / max(times)) * 4)))
    made = Scenario(
        Trace("closed", rows), {"m": stages}, lambda role, _name, _shape: table[role], {},
        (NodeWish("g", (offer_of("G", gpus),), 1),), config, noise=NOISE, in_flight=IN_FLIGHT * gpus, end_s=end_s,
    )  # fmt: skip
    return msgspec.structs.replace(made, **more)


def run(made: Scenario, *counts: int) -> Run:
    return World(
        made, "run", [(0.0, SetCounts(dict(zip(made.roles, counts, strict=True)), Reason("bounds", "fixed")))]
    ).run()


def per_min(found: Run) -> float:
    """After the first fifth, in which pipelines fill."""
    begin = found.end_s / 5
    return found.between(begin, found.end_s) / ((found.end_s - begin) / 60)


def best_ratio(made: Scenario) -> tuple[int, ...]:
    tried = candidates(made, made.trace.rows[:1], 4)
    return max(tried, key=lambda counts: per_min(run(made, *counts)))


def even(gpus: int) -> tuple[int, ...]:
    return gpus - 2 * (gpus // 3), gpus // 3, gpus // 3


def measure(case: Case, gpus: int) -> dict[str, float]:
    whole = per_min(run(scenario((sum(case.whole),), gpus, ("all",)), gpus))
    resident = per_min(run(scenario((sum(case.split),), gpus, ("all",)), gpus))
    split = scenario(case.split, gpus)
    ratio = best_ratio(split)
    sync = msgspec.structs.replace(split, synchronous=True)
    naive, tuned = per_min(run(sync, *even(gpus))), per_min(run(sync, *ratio))
    final = per_min(run(split, *ratio))
    waits = latencies(case, gpus, ratio, 0.9 * final / 60)
    return {
        "whole": whole, "disaggregated": final, "total": final / whole, "no_offload": resident / whole,
        "split": naive / resident, "ratio": tuned / naive, "overlap": final / tuned, "latency": waits[0] / waits[1],
        "encode": ratio[0], "denoise": ratio[1], "decode": ratio[2],
    }  # fmt: skip


def latencies(case: Case, gpus: int, ratio: tuple[int, ...], rate: float) -> tuple[float, float]:
    """Mean end-to-end seconds (whole, split) of the same Poisson arrivals at nine tenths of what the split fleet can do."""
    length = max(LEAST_S, 10 * sum(case.whole))
    rows = poisson(length, lambda _: rate, rate, always(SHAPE), Rng(1, "open"))
    trace = Trace("open", tuple(Arriving(at, "m", shape) for at, shape in rows))
    found = []
    for times, stages, counts in (((sum(case.whole),), ("all",), (gpus,)), (case.split, STAGES, ratio)):
        made = scenario(times, gpus, stages, trace=trace, in_flight=0, end_s=100 * length)
        ended = run(made, *counts).ended
        found.append(sum(one.latency_s for one in ended) / len(ended))
    return found[0], found[1]


def figures(*, table: bool) -> Iterator[Figure]:
    for case in CASES:
        for gpus in (8, 16):
            made = measure(case, gpus)
            name = f"headline_{case.name}_{case.gpu}x{gpus}"
            for key in ("total", "no_offload", "split", "ratio", "overlap", "latency"):
                yield Figure(f"{name}_{key}", rounded(made[key]), "ratio", None, "higher", "whole pipeline", 1.0)
            known = next(((value, who) for count, value, who in case.published if count == gpus), None)
            value = rounded(made["disaggregated"])
            yield Figure(
                f"{name}_qpm", value, "requests a minute", None, "higher", *(known[::-1] if known else (None, None))
            )
            if table:
                counts = f"{made['encode']:.0f}:{made['denoise']:.0f}:{made['decode']:.0f}"
                cells = [f"{made[k]:.2f}" for k in ("no_offload", "split", "ratio", "overlap", "total", "latency")]
                qpm = f"{made['whole']:.2f} → {made['disaggregated']:.2f}"
                print(
                    f"| {case.name} | {gpus} × {case.gpu} | {counts} | {qpm} | {' | '.join(cells)} |", file=sys.stderr
                )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.headline", description=__doc__)
    parser.add_argument("--table", action="store_true", help="also as a table, on stderr")
    args = parser.parse_args()
    for figure in figures(table=args.table):
        print(figure.line(), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
