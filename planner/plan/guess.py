"""A quick guess of what a level would cost, to try the promising ones first. Orders attempts; decides nothing."""

import math
from collections import defaultdict

from planner.plan.build import Keep
from planner.plan.level import Rules, partitions
from planner.plan.market import Market
from planner.plan.options import Universe


def guess(universe: Universe, market: Market, rules: Rules, keep: Keep) -> float:
    """Σ over classes of the cheapest way within the limit, and each used queue's fixed charge; caps, whole nodes ignored."""
    price = prices(market)
    request = universe.request
    rate = {k: item.rate_per_s for k, item in enumerate(request.workload.classes)}
    best: dict[tuple[str, int, tuple[str, ...]], tuple[float, float, float]] = {}  # (cost, seconds, price of a replica)
    for option in universe.options:
        a, _, _ = rules.queues[option.model, option.bundle]
        for cell, usd in price.get(option.gpu, {}).items():
            for k, found in option.served.items():
                if found.seconds <= rules.limit_s.get(k, math.inf) and keep(option, k):
                    cost = rate[k] * found.seconds / a * usd * option.gpus
                    key = (cell, k, option.stages)
                    if key not in best or cost < best[key][0]:
                        best[key] = (cost, found.seconds, usd * option.gpus)
    cells = sorted({cell for cell, _, _ in best})
    total = math.inf
    for cell in cells:
        total = min(total, _cell(universe, rules, best, cell))
    return total


def _cell(
    universe: Universe,
    rules: Rules,
    best: dict[tuple[str, int, tuple[str, ...]], tuple[float, float, float]],
    cell: str,
) -> float:
    total, opened = 0.0, dict[tuple[str, str], float]()
    for model, classes in universe.classes_of.items():
        parts = list(partitions(universe.stages[model], universe.bundles[model]))
        for k in classes:
            ways = []
            for part in parts:
                if all((cell, k, bundle) in best for bundle in part):
                    found = [best[cell, k, bundle] for bundle in part]
                    if sum(seconds for _, seconds, _ in found) <= rules.limit_s.get(k, math.inf) * (1 + 1e-9):
                        ways.append((sum(cost for cost, _, _ in found), part, found))
            if not ways:
                return math.inf
            cost, part, found = min(ways, key=lambda way: way[0])
            total += cost
            for bundle, (_, _, usd) in zip(part, found, strict=True):
                key = (model, "+".join(bundle))
                opened[key] = min(opened.get(key, usd), usd)
    return total + sum(usd * rules.queues[key][1] for key, usd in opened.items())


def prices(market: Market) -> dict[str, dict[str, float]]:
    """GPU → cell → the cheapest USD an hour of one GPU."""
    found: dict[str, dict[str, float]] = defaultdict(dict)
    for tier in market.tiers:
        pool = market.pools[tier.pool]
        each = tier.usd_per_hour / tier.count
        found[pool.gpu][pool.cell] = min(found[pool.gpu].get(pool.cell, each), each)
    return found
