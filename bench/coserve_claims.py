"""What is claimed of the runs of :mod:`bench.coserve`: attainment, what each mechanism adds, and latencies."""

from collections.abc import Iterable, Sequence
from typing import Final

from bench.coserve_runs import Outcome, baselines
from bench.figures import Figure, rounded

TIGHT: Final = (0.40, 0.50)  # where the strongest baseline attains so much
MOST_LOAD: Final = 0.9  # of latency claims

Where = tuple[str, int, float, float]


def where_of(one: Outcome) -> Where:
    """Workload, GPUs, load, SLO scale."""
    return one.point.workload, one.point.gpus, one.point.load, one.point.scale


def means(found: Iterable[Outcome], field: str) -> dict[Where, dict[str, float]]:
    """Where → contender → mean over the seeds."""
    rows: dict[Where, dict[str, list[float]]] = {}
    for one in found:
        rows.setdefault(where_of(one), {}).setdefault(one.contender, []).append(getattr(one, field))
    return {where: {name: sum(all_) / len(all_) for name, all_ in row.items()} for where, row in rows.items()}


def complete(found: Sequence[Outcome], main: str, others: Sequence[str]) -> list[Outcome]:
    """Runs at points that the policy and all these baselines have run: nobody is compared on other seeds than the rest.

    Runs of the policy without a mechanism stay where there are any.
    """
    ran: dict[object, set[str]] = {}
    for one in found:
        ran.setdefault(one.point, set()).add(one.contender)
    return [one for one in found if {main, *others} <= ran[one.point]]


def attainment(found: Sequence[Outcome]) -> list[Figure]:
    """Against the strongest baseline of each point: where that is tight, and the worst anywhere."""
    names = {one.name for one in baselines()}
    rows = {where: row for where, row in means(found, "attained").items() if "genserve" in row}
    best = {where: max(row[name] for name in names if name in row) for where, row in rows.items()}
    figures = []
    for workload, gpus in sorted({where[:2] for where in rows}):
        here = [where for where in rows if where[:2] == (workload, gpus)]
        tight = sorted(
            (rows[where]["genserve"] / best[where], where) for where in here if TIGHT[0] <= best[where] <= TIGHT[1]
        )
        for label, (gain, at) in (("least", tight[0]), ("most", tight[-1])) if tight else ():
            name, peer = f"attained_vs_best_static_{label}_{workload}_{gpus}", f"load {at[2]:g}, {at[3]:g}×"
            figures.append(Figure(name, rounded(gain), "x", 1.44, "higher", peer, rounded(best[at])))
        at = min(here, key=lambda where: rows[where]["genserve"] - best[where])
        gain, peer = rounded(rows[at]["genserve"] - best[at]), f"load {at[2]:g}, {at[3]:g}×"
        figures.append(
            Figure(f"attained_least_gain_{workload}_{gpus}", gain, "share", -0.02, "higher", peer, rounded(best[at]))
        )
    return figures


def mechanisms(found: Sequence[Outcome]) -> list[Figure]:
    """What is lost without each mechanism, in shares on time: the mean over the points where both ran."""
    figures = []
    seen: dict[tuple[object, str], float] = {(one.point, one.contender): one.attained for one in found}
    kinds = sorted({(one.contender, one.point.workload, one.point.gpus) for one in found if "without" in one.contender})
    for name, workload, gpus in kinds:
        policy = name.split()[0]
        if policy != "genserve":
            continue
        pairs = [
            (seen[one.point, policy], one.attained)
            for one in found
            if (one.contender, one.point.workload, one.point.gpus) == (name, workload, gpus)
            and (one.point, policy) in seen
        ]
        if pairs:
            gain = sum(mine - without for mine, without in pairs) / len(pairs)
            mean = sum(without for _, without in pairs) / len(pairs)
            label, peer = f"gain_of_{name.split()[-1]}_{workload}_{gpus}", f"without, {len(pairs)} runs"
            figures.append(Figure(label, rounded(gain), "share", None, "higher", peer, rounded(mean)))
    return figures


def stages(found: Sequence[Outcome]) -> list[Figure]:
    """Latency against whole pipelines on one GPU each (the fleet that loads are multiples of), and on any fixed degree."""
    figures = []
    found = [one for one in found if not one.unserved]  # a fleet that cannot hold all models is none to compare with
    whole = tuple(one.name for one in baselines() if one.layout == "whole")
    for field, bar in (("mean_s", 2.5), ("p95_s", 3.6)):
        rows = {where: row for where, row in means(found, field).items() if {"trident", "whole-1 fifo"} <= row.keys()}
        for name, gpus in sorted({where[:2] for where in rows if where[2] <= MOST_LOAD}):
            here = [where for where in rows if where[:2] == (name, gpus) and where[2] <= MOST_LOAD]
            for peer, fleets in (("whole_1", ("whole-1 fifo",)), ("best_whole", whole)):
                at = max(here, key=lambda where: least(rows[where], fleets) / rows[where]["trident"])
                theirs = least(rows[at], fleets)
                label, value = f"{field}_vs_{peer}_{name}_{gpus}", rounded(theirs / rows[at]["trident"])
                wanted = bar if peer == "whole_1" else None
                figures.append(Figure(label, value, "x", wanted, "higher", f"load {at[2]:g}", rounded(theirs)))
    return figures


def least(row: dict[str, float], fleets: Iterable[str]) -> float:
    """Of the fleets that ran."""
    return min(row[fleet] for fleet in fleets if fleet in row)
