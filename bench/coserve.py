"""Images and videos on one fleet, simulated: our policies against fleets that cannot pause (``bench/workloads``).

Prints a figure a line. Claims are on held-out seeds; the strongest baseline is picked anew at every load and SLO scale. The
short run takes one seed, the outer SLO scales of ``mix-even`` on 8 GPUs, and the lowest load of the latency workloads;
``--full`` takes all of it (hours). ``--write FOLDER`` puts the table (coserving-figures.md) and the pictures there.
"""

import argparse
import os
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Final

import msgspec

from bench.coserve_report import write
from bench.coserve_runs import Contender, Outcome, Point, baselines, ours, run, workload
from bench.coserve_small import decide_p99_ms, worst_of_tiny
from bench.figures import Figure, rounded

MIXES: Final = ("mix-even", "mix-images-bursty", "mix-videos")
LATENCY: Final = ("shapes-hunyuan", "shift-models")
TIGHT: Final = (0.40, 0.50)  # where the strongest baseline attains so much
LATENCY_SCALE: Final = 3.0


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
            seeds = work.seeds.held_out if full and gpus == work.gpus[0] else work.seeds.held_out[:1]
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
    args = parser.parse_args()
    mixes, latency = points(full=args.full)
    mine = ours()
    genserve = [one for one in mine if one.policy == "genserve"]
    trident = [one for one in mine if one.policy == "trident"]
    jobs = [
        (point, one)
        for point in mixes
        for one in (*baselines(), *(genserve if args.full or point.load > 0.6 else genserve[:1]))
    ]
    jobs += [
        (point, one)
        for point in latency
        for one in (*(b for b in baselines() if b.layout in {"whole", "pools"}), *trident)
    ]
    found = outcomes(jobs, args.keep)
    figures = [*attainment(found), *stages(found), decide_p99_ms("genserve"), decide_p99_ms("trident"), worst_of_tiny()]
    for figure in figures:
        print(figure.line(), flush=True)
    if args.write:
        write(args.write, found, figures)
    return 1 if any(not figure.met for figure in figures) else 0


def outcomes(jobs: Sequence[tuple[Point, Contender]], keep: Path | None = None) -> list[Outcome]:
    """All runs, on all cores, with a sign of life. ``keep``: a file of runs, added to; what it has is not run again."""
    lines = keep.read_text().splitlines() if keep is not None and keep.exists() else []
    kept = [msgspec.json.decode(line, type=Outcome) for line in lines]
    wanted = {(point, one.name) for point, one in jobs}
    found = [one for one in kept if (one.point, one.contender) in wanted]
    done = {(one.point, one.contender) for one in found}
    todo = [(point, one) for point, one in jobs if (point, one.name) not in done]
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        for outcome in pool.map(run, *zip(*todo, strict=True), chunksize=4) if todo else ():
            found.append(outcome)
            if keep is not None:
                with keep.open("ab") as file:
                    file.write(msgspec.json.encode(outcome) + b"\n")
            if len(found) % 50 == 0:
                print(f"{len(found)} of {len(jobs)} runs", file=sys.stderr, flush=True)
    return found


Where = tuple[str, int, float, float]


def means(found: Iterable[Outcome], field: str) -> dict[Where, dict[str, float]]:
    """Where → contender → mean over the seeds."""
    rows: dict[Where, dict[str, list[float]]] = {}
    for one in found:
        where = (one.point.workload, one.point.gpus, one.point.load, one.point.scale)
        rows.setdefault(where, {}).setdefault(one.contender, []).append(getattr(one, field))
    return {where: {name: sum(all_) / len(all_) for name, all_ in row.items()} for where, row in rows.items()}


def attainment(found: Sequence[Outcome]) -> list[Figure]:
    """Against the strongest baseline of each point: where that is tight, and the worst anywhere."""
    names = {one.name for one in baselines()}
    rows = {where: row for where, row in means(found, "attained").items() if "genserve" in row}
    best = {where: max(row[name] for name in names if name in row) for where, row in rows.items()}
    figures = []
    for workload_name, gpus in sorted({where[:2] for where in rows}):
        here = [where for where in rows if where[:2] == (workload_name, gpus)]
        tight = [where for where in here if TIGHT[0] <= best[where] <= TIGHT[1]]
        if tight:
            at = min(tight, key=lambda where: rows[where]["genserve"] / best[where])
            name = f"attained_vs_best_static_{workload_name}_{gpus}"
            figures.append(
                Figure(
                    name,
                    rounded(rows[at]["genserve"] / best[at]),
                    "x",
                    1.44,
                    "higher",
                    f"load {at[2]:g}, {at[3]:g}×",
                    rounded(best[at]),
                )
            )
        at = min(here, key=lambda where: rows[where]["genserve"] - best[where])
        gain = rounded(rows[at]["genserve"] - best[at])
        name, where = f"attained_least_gain_{workload_name}_{gpus}", f"load {at[2]:g}, {at[3]:g}×"
        figures.append(Figure(name, gain, "share", -0.02, "higher", where, rounded(best[at])))
    return figures


def stages(found: Sequence[Outcome]) -> list[Figure]:
    """Latency against whole pipelines on one GPU each (the fleet that loads are multiples of), and on any fixed degree."""
    figures = []
    for field, bar in (("mean_s", 2.5), ("p95_s", 3.6)):
        rows = {where: row for where, row in means(found, field).items() if "trident" in row and where[2] <= 0.9}
        for name, gpus in sorted({where[:2] for where in rows}):
            here = [where for where in rows if where[:2] == (name, gpus)]
            for peer, fleets in (
                ("whole_1", ("whole-1 fifo",)),
                ("best_whole", tuple(b.name for b in baselines() if b.layout == "whole")),
            ):
                at = max(here, key=lambda where: min(rows[where][fleet] for fleet in fleets) / rows[where]["trident"])
                theirs = min(rows[at][fleet] for fleet in fleets)
                figures.append(
                    Figure(
                        f"{field}_vs_{peer}_{name}_{gpus}", rounded(theirs / rows[at]["trident"]), "x",
                        bar if peer == "whole_1" else None, "higher", f"load {at[2]:g}", rounded(theirs),
                    )
                )  # fmt: skip
    return figures


if __name__ == "__main__":
    sys.exit(main())
