"""How the SLO becomes linear rules, at one of several levels of caution; docs/planning.md states them.

A level is (share r, slack d). Every way a request of class k may take has at most r·SLO seconds of service, and every
queue's p95 wait is at most d·(1/r − 1) mean services (less when SLOs differ), which the fixed charge h of
``facts.queueing.fit`` guarantees.
"""

from collections.abc import Iterator, Mapping, Sequence

import msgspec

from planner.facts import queueing
from planner.plan.options import Option, Universe

SHARES = (0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.05)
SLACKS = (2.0, 1.4, 1.0)


class Level(msgspec.Struct, frozen=True, order=True):
    """Share of the SLO for service, and how optimistic the waits are (several queues are seldom bad together)."""

    share: float
    slack: float


class Rules(msgspec.Struct, frozen=True):
    """A level applied. ``limit_s``: class → most seconds of service; ``queues``: (model, bundle) → (a, h, multiple)."""

    limit_s: dict[int, float]
    share: dict[int, float]
    queues: dict[tuple[str, str], tuple[float, float, float | None]]


def partitions(stages: Sequence[str], bundles: Sequence[tuple[str, ...]]) -> Iterator[tuple[tuple[str, ...], ...]]:
    """Every way to cut the stages into bundles."""
    if not stages:
        yield ()
        return
    for bundle in bundles:
        if stages[0] in bundle and all(stage in stages for stage in bundle):
            for rest in partitions([stage for stage in stages if stage not in bundle], bundles):
                yield (bundle, *rest)


def quickest(
    parts: Sequence[tuple[tuple[str, ...], ...]], least: Mapping[tuple[str, ...], float]
) -> dict[tuple[str, ...], float]:
    """For each bundle, the seconds of the quickest way that uses it."""
    best: dict[tuple[str, ...], float] = {}
    for part in parts:
        if all(bundle in least for bundle in part):
            total = sum(least[bundle] for bundle in part)
            for bundle in part:
                best[bundle] = min(best.get(bundle, total), total)
    return best


def fastest(universe: Universe, options: Sequence[Option]) -> dict[int, float]:
    """Class → seconds of its quickest way through these options; absent: no way."""
    least: dict[int, dict[tuple[str, ...], float]] = {}
    for option in options:
        for k, found in option.served.items():
            mine = least.setdefault(k, {})
            mine[option.stages] = min(mine.get(option.stages, found.seconds), found.seconds)
    answer: dict[int, float] = {}
    for model, classes in universe.classes_of.items():
        parts = list(partitions(universe.stages[model], universe.bundles[model]))
        for k in classes:
            ways = quickest(parts, least.get(k, {}))
            if ways:
                answer[k] = min(ways.values())
    return answer


def rules_of(universe: Universe, level: Level, quick: Mapping[int, float]) -> Rules:
    """The rules of a level. A class whose quickest way already exceeds the share gets that way's share instead."""
    request = universe.request
    limit: dict[int, float] = {}
    share: dict[int, float] = {}
    for k, item in enumerate(request.workload.classes):
        if item.p95_s is not None and k in quick:
            share[k] = min(max(level.share, quick[k] / item.p95_s * (1 + 1e-9)), 1.0)
            limit[k] = share[k] * item.p95_s
    multiple = _wait_multiples(universe, level, limit)
    queues: dict[tuple[str, str], tuple[float, float, float | None]] = {}
    for (model, bundle), cs2 in variability(universe).items():
        wait = multiple.get(model)
        rounded = None if wait is None else round(max(wait, 0.01), 4)
        a, h = queueing.fit(rounded, round(request.workload.cv2, 4), round(cs2, 4), request.max_utilisation)
        queues[model, bundle] = (a, h, rounded)
    return Rules(limit, share, queues)


def _wait_multiples(universe: Universe, level: Level, limit: Mapping[int, float]) -> dict[str, float]:
    """Model → p95 wait of each of its queues over that queue's mean service: what the most pressed class can bear.

    d·min over classes of (SLO − limit) / (mean limit over requests); d·(1/r − 1) when all classes have one SLO.
    """
    items = universe.request.workload.classes
    answer: dict[str, float] = {}
    for model, classes in universe.classes_of.items():
        bound = [(items[k].rate_per_s, limit[k], items[k].p95_s or limit[k]) for k in classes if k in limit]
        if bound:
            mean = sum(rate * most for rate, most, _ in bound) / sum(rate for rate, _, _ in bound)
            answer[model] = level.slack * min(slo - most for _, most, slo in bound) / mean
    return answer


def variability(universe: Universe) -> dict[tuple[str, str], float]:
    """(model, bundle) → squared coefficient of variation of its service, on the option that serves most classes soonest."""
    classes = universe.request.workload.classes
    best: dict[tuple[str, str], tuple[tuple[int, float], float]] = {}
    for option in universe.options:
        weights = [(classes[k].rate_per_s, found.seconds) for k, found in option.served.items()]
        total = sum(rate for rate, _ in weights)
        mean = sum(rate * seconds for rate, seconds in weights) / total
        second = sum(rate * seconds**2 for rate, seconds in weights) / total
        rank = (-len(weights), mean * option.gpus)
        key = (option.model, option.bundle)
        if key not in best or rank < best[key][0]:
            best[key] = (rank, max(second / mean**2 - 1, 0.0))
    return {key: cs2 for key, (_, cs2) in best.items()}
