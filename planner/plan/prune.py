"""Narrowing a large problem to what could matter. Not lossless: the engine widens it when nothing is left.

Kept: for each class and bundle the places within a window of the cheapest cost per request, and the ``LEAST`` cheapest;
for each kind of node of a cloud the ``TIERS`` cheapest tiers, spot and on-demand apart.

Classes of one model whose times are alike in shape, and that may run in much the same places, share their routes: a
restriction, so that every solution is one of the whole problem too.
"""

import math
from collections import defaultdict

import msgspec

from planner.plan.build import Keep
from planner.plan.guess import prices
from planner.plan.level import Rules
from planner.plan.market import Market, Tier
from planner.plan.options import Universe

WINDOWS = (1.5, 3.0)
LEAST = 8
TIERS = (8, 3)  # up to, and beyond, ``MANY`` tiers
MANY = 2000
ALIKE = 0.6  # places in common over places of either, for classes to share routes

Place = tuple[int, str]  # option, cell


class Narrowed(msgspec.Struct):
    """What is left of a market, the places each class may run in, and classes that share routes (class → its group's first)."""

    market: Market
    places: dict[int, set[Place]]
    group: dict[int, int]


def size_of(universe: Universe, market: Market) -> int:
    """Pairs of class and site: the flows of the program."""
    pools: dict[str, int] = defaultdict(int)
    for pool in market.pools:
        pools[pool.gpu] += 1
    return sum(len(option.served) * pools.get(option.gpu, 0) for option in universe.options)


def prune(universe: Universe, market: Market, rules: Rules, keep: Keep, window: float) -> Narrowed:
    """The narrowed problem."""
    price = prices(market)
    ranked: dict[tuple[int, tuple[str, ...]], list[tuple[float, int, str]]] = defaultdict(list)
    for option in universe.options:
        for k, found in option.served.items():
            if found.seconds <= rules.limit_s.get(k, math.inf) and keep(option, k):
                for cell, usd in price.get(option.gpu, {}).items():
                    ranked[k, option.stages].append((found.seconds * usd * option.gpus, option.index, cell))
    places: dict[int, set[Place]] = defaultdict(set)
    for (k, _), pairs in ranked.items():
        pairs.sort()
        limit = window * pairs[0][0]
        places[k].update((index, cell) for n, (cost, index, cell) in enumerate(pairs) if n < LEAST or cost <= limit)
    wanted = {(universe.options[index].gpu, cell) for some in places.values() for index, cell in some}
    kept = [
        tier
        for tier in _tiers(market)
        if (market.pools[tier.pool].gpu, market.pools[tier.pool].cell) in wanted or tier.running
    ]
    return Narrowed(Market(market.pools, tuple(kept)), dict(places), _groups(universe, places))


def _groups(universe: Universe, places: dict[int, set[Place]]) -> dict[int, int]:
    """Greedy, in the order of the classes; a group's places are those common to all of its classes."""
    common: dict[int, set[Place]] = {}
    kinds: dict[int, tuple[object, ...]] = {}
    group: dict[int, int] = {}
    for k in sorted(places, key=lambda k: (-len(places[k]), k)):
        kind = _kind(universe, k)
        for first, shared in common.items():
            both = shared & places[k]
            if kinds[first] == kind and len(both) >= ALIKE * len(shared | places[k]):
                group[k] = first
                common[first] = both
                break
        else:
            group[k], common[k], kinds[k] = k, set(places[k]), kind
    return group


def _kind(universe: Universe, k: int) -> tuple[object, ...]:
    """The model, and each stage's part of the time to a factor of two."""
    model = universe.request.workload.classes[k].model
    seconds: dict[str, float] = {}
    for option in universe.options:
        if option.model == model and k in option.served and len(option.stages) == 1:
            found = option.served[k].seconds
            seconds[option.bundle] = min(seconds.get(option.bundle, found), found)
    total = sum(seconds.values())
    return (
        model,
        *(round(math.log2(max(seconds.get(stage, 0.0) / total, 1 / 64))) for stage in universe.stages[model] if total),
    )


def _tiers(market: Market) -> list[Tier]:
    """The cheapest tiers of each kind of node, spot and on-demand apart; those that run already stay."""
    groups: dict[tuple[int, int, bool], list[Tier]] = defaultdict(list)
    for tier in market.tiers:
        groups[tier.pool, tier.count, tier.spot].append(tier)
    most = TIERS[len(market.tiers) > MANY]
    kept: list[Tier] = []
    for tiers in groups.values():
        tiers.sort(key=lambda tier: tier.usd_per_hour)
        kept.extend(tier for n, tier in enumerate(tiers) if n < most or tier.running)
    return kept
