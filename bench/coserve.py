"""Images and videos on one fleet, simulated: our policies against fleets that cannot pause (``bench/workloads``).

Prints a figure a line. Claims are on held-out seeds; the strongest baseline is picked anew at every load and SLO scale. The
short run takes one seed, the outer SLO scales of ``mix-even`` on 8 GPUs, and the lowest load of the latency workloads;
``--full`` takes all of it (hours): with ``--keep FILE --seconds S`` in slices. ``--write FOLDER`` puts the table
(coserving-figures.md) and the pictures there.
"""

import argparse
import itertools
import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from pathlib import Path
from typing import Final

import msgspec

from bench.coserve_claims import attainment, complete, mechanisms, stages
from bench.coserve_report import write
from bench.coserve_runs import Contender, Outcome, Point, baselines, ours, run, workload
from bench.coserve_small import decide_p99_ms, worst_of_tiny

MIXES: Final = ("mix-even", "mix-images-bursty", "mix-videos")
LATENCY: Final = ("shapes-hunyuan", "shift-models")
LATENCY_LAYOUTS: Final = frozenset({"whole", "pools"})
LATENCY_SCALE: Final = 3.0
LIGHT: Final = 0.6


def points(*, full: bool) -> tuple[list[Point], list[Point]]:
    """Of attainment, and of latency."""
    mixes, latency = [], []
    for name in MIXES if full else MIXES[:1]:
        work = workload(name)
        scales = work.slo_scales if full else (work.slo_scales[0], work.slo_scales[-1])
        for gpus in work.gpus if full else work.gpus[:1]:
            seeds = work.seeds.held_out if full and gpus == work.gpus[0] else work.seeds.held_out[:1]
            mixes += [Point(name, gpus, load, scale, seed) for load in work.loads for scale in scales for seed in seeds]
    for name in LATENCY:
        work = workload(name)
        for gpus in work.gpus if full else work.gpus[:1]:
            seeds = work.seeds.held_out if full else work.seeds.held_out[:1]
            loads = work.loads if full else work.loads[:1]
            latency += [Point(name, gpus, load, LATENCY_SCALE, seed) for load in loads for seed in seeds]
    return mixes, latency


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m bench.coserve", description=__doc__)
    parser.add_argument("--full", action="store_true", help="every workload, load, scale and held-out seed")
    parser.add_argument("--write", type=Path, metavar="FOLDER", help="write the table and the pictures there")
    parser.add_argument(
        "--keep", type=Path, metavar="FILE", help="keep runs there, and do not repeat those that it has"
    )
    parser.add_argument(
        "--seconds", type=float, metavar="S", help="begin no run after S seconds; figures are of what is complete"
    )
    args = parser.parse_args()
    found = outcomes(runs(full=args.full), args.keep, args.seconds)
    whole = [one.name for one in baselines() if one.layout in LATENCY_LAYOUTS]
    mixes = complete([one for one in found if one.point.workload in MIXES], "genserve", [b.name for b in baselines()])
    latency = complete([one for one in found if one.point.workload in LATENCY], "trident", whole)
    figures = [
        *attainment(mixes), *mechanisms(mixes), *stages(latency), decide_p99_ms("genserve"), decide_p99_ms("trident"),
        worst_of_tiny(),
    ]  # fmt: skip
    for figure in figures:
        print(figure.line(), flush=True)
    if args.write:
        write(args.write, [*mixes, *latency], figures)
    return 1 if any(not figure.met for figure in figures) else 0


def runs(*, full: bool) -> list[tuple[Point, Contender]]:
    """Who runs where: policies and baselines first, then policies without a mechanism, small fleets before large ones."""
    mixes, latency = points(full=full)
    mine = {kind: [one for one in ours() if one.policy == kind] for kind in ("genserve", "trident")}
    static = [one for one in baselines() if one.layout in LATENCY_LAYOUTS]
    first = [(point, one) for point in latency for one in (*static, mine["trident"][0])]
    first += [(point, one) for point in mixes for one in (*baselines(), mine["genserve"][0])]
    then = [(point, one) for point in latency for one in mine["trident"][1:]]
    then += [(point, one) for point in mixes for one in mine["genserve"][1:] if full or point.load > LIGHT]
    return [job for rows in (first, then) for job in sorted(rows, key=lambda job: job[0].gpus)]


def outcomes(
    jobs: Sequence[tuple[Point, Contender]], keep: Path | None = None, seconds: float | None = None
) -> list[Outcome]:
    """All runs, on all cores, with a sign of life. ``keep``: a file of runs, added to; what it has is not run again.
    ``seconds``: after which none is begun."""
    lines = keep.read_text().splitlines() if keep is not None and keep.exists() else []
    kept = [msgspec.json.decode(line, type=Outcome) for line in lines]
    wanted = {(point, one.name) for point, one in jobs}
    found = [one for one in kept if (one.point, one.contender) in wanted]
    done = {(one.point, one.contender) for one in found}
    todo = iter([(point, one) for point, one in jobs if (point, one.name) not in done])
    end_s = time.monotonic() + (seconds if seconds is not None else float("inf"))
    cores = os.cpu_count() or 1
    with ProcessPoolExecutor(cores) as pool:
        first = 2 * cores if time.monotonic() < end_s else 0
        going = {pool.submit(run, *job) for job in itertools.islice(todo, first)}
        while going:
            ended, going = wait(going, return_when=FIRST_COMPLETED)
            for future in ended:
                found.append(future.result())
                if keep is not None:
                    with keep.open("ab") as file:
                        file.write(msgspec.json.encode(found[-1]) + b"\n")
                if len(found) % 50 == 0:
                    print(f"{len(found)} of {len(jobs)} runs", file=sys.stderr, flush=True)
                if time.monotonic() < end_s:
                    going |= {pool.submit(run, *job) for job in itertools.islice(todo, 1)}
    return found


if __name__ == "__main__":
    sys.exit(main())
