"""From a request's options and market to the mixed-integer program; docs/planning.md has it in mathematics."""

import itertools
import math
from collections import defaultdict
from collections.abc import Callable
from typing import Protocol

import msgspec

from planner.plan.level import Rules, partitions, quickest
from planner.plan.limits import add_limits
from planner.plan.market import Market
from planner.plan.options import Option, Universe
from planner.plan.problem import Problem

TIE_USD = (
    1e-5  # an hour: what a replica's GPU weighs, so that a spare one stays idle rather than hold what nobody needs
)
FREE_USD = 1e-3  # an hour and GPU: what a machine without a price weighs, so that no more are taken than are needed
Keep = Callable[[Option, int], bool]  # (option, class) → may it serve this class?


class Narrow(Protocol):
    """What a narrowed problem allows (planner.plan.prune)."""

    places: dict[int, set[tuple[int, str]]]
    group: dict[int, int]


class Site(msgspec.Struct):
    """An option on a pool: ``count`` is its column; ``flows``: class → column of the share of the class served there.

    Classes that share routes have the same column.
    """

    option: Option
    pool: int
    cell: str
    count: int
    flows: dict[int, int]


class Model(msgspec.Struct):
    """The program, and what its columns mean. ``rent``: column of each tier."""

    problem: Problem
    universe: Universe
    market: Market
    rules: Rules
    sites: list[Site]
    rent: list[int]
    shares: dict[tuple[int, str], int]
    moves: list[tuple[int, int, int]]  # (tier, started, stopped)
    egress: list[int]
    group: dict[int, int]
    opened: dict[tuple[str, str, str], int] = {}  # (model, bundle, cell) → column of its queue's being open

    def first(self, k: int) -> bool:
        """Whether a class stands for its group (it does for itself when there are no groups)."""
        return self.group.get(k, k) == k


def everything(_option: Option, _class: int) -> bool:
    """Keep all."""
    return True


def build(
    universe: Universe,
    market: Market,
    rules: Rules,
    keep: Keep = everything,
    narrow: Narrow | None = None,
    *,
    capped: bool = False,
) -> Model | int:
    """The program; or the number of a class that no way is left for (then there is none). ``capped``: within the budget."""
    allowed = _allowed(universe, market, rules, keep)
    if narrow is not None:
        allowed = _narrowed(market, allowed, narrow)
    served = {k for _, _, ks in allowed for k in ks}
    for k in range(len(universe.request.workload.classes)):
        if k not in served:
            return k
    model = Model(
        Problem.empty(), universe, market, rules, [], [], {}, [], [], narrow.group if narrow is not None else {}
    )
    _columns(model, allowed, TIE_USD if narrow is None else 0.0)
    _demand(model)
    _capacity(model)
    _pools(model)
    _service(model)
    busy = None if narrow is None else _needed(model)
    add_limits(model.problem, universe.request, market, model.sites, model.rent, model.moves, busy)
    if universe.request.cross_cloud and universe.request.egress:
        _egress(model)
    budget = universe.request.max_usd_per_hour
    if capped and budget is not None:
        rent = [(column, tier.usd_per_hour) for column, tier in zip(model.rent, market.tiers, strict=True)]
        egress = [(column, model.problem.cost[column]) for column in model.egress]
        model.problem.row([*rent, *egress], upper=budget)
    return model


def _allowed(universe: Universe, market: Market, rules: Rules, keep: Keep) -> list[tuple[Option, int, list[int]]]:
    """(option, pool, classes): pairs whose quickest completion within the cell is within the class's limit."""
    pairs = _hosted(universe, market, keep)
    least: dict[tuple[str, int], dict[tuple[str, ...], float]] = defaultdict(dict)
    for option, at, classes in pairs:
        for k in classes:
            mine, seconds = least[market.pools[at].cell, k], option.served[k].seconds
            mine[option.stages] = min(mine.get(option.stages, seconds), seconds)
    parts = {m: list(partitions(universe.stages[m], universe.bundles[m])) for m in universe.stages}
    items = universe.request.workload.classes
    ways = {(cell, k): quickest(parts[items[k].model], mine) for (cell, k), mine in least.items()}
    allowed = []
    for option, at, classes in pairs:
        cell = market.pools[at].cell
        kept = []
        for k in classes:
            way = ways[cell, k].get(option.stages, math.inf) - least[cell, k][option.stages] + option.served[k].seconds
            if way < math.inf and way <= rules.limit_s.get(k, math.inf) * (1 + 1e-9):
                kept.append(k)
        if kept:
            allowed.append((option, at, kept))
    return allowed


def _hosted(universe: Universe, market: Market, keep: Keep) -> list[tuple[Option, int, list[int]]]:
    """Every option on every pool that has nodes large enough for it, and the spot or on-demand kind it may use."""
    widest: dict[int, int] = defaultdict(int)
    for tier in market.tiers:
        widest[tier.pool] = max(widest[tier.pool], tier.count)
    pairs = []
    for option in universe.options:
        classes = [k for k in option.served if keep(option, k)]
        for at, pool in enumerate(market.pools):
            kind = option.spot is None or pool.spot in {None, option.spot}
            kind = kind and (option.kinds is None or pool.kind in option.kinds)
            if pool.gpu == option.gpu and kind and option.gpus <= widest[at]:
                pairs.append((option, at, classes))
    return pairs


def _narrowed(
    market: Market, allowed: list[tuple[Option, int, list[int]]], narrow: Narrow
) -> list[tuple[Option, int, list[int]]]:
    """Only the places left to each class, and of each group all classes or none."""
    members: dict[int, set[int]] = defaultdict(set)
    for k, first in narrow.group.items():
        members[first].add(k)
    kept = []
    for option, at, ks in allowed:
        cell = market.pools[at].cell
        able = {k for k in ks if (option.index, cell) in narrow.places.get(k, ())}
        whole = sorted(k for some in members.values() if some <= able for k in some)
        if whole:
            kept.append((option, at, whole))
    return kept


def _columns(model: Model, allowed: list[tuple[Option, int, list[int]]], tie_usd: float) -> None:
    """``tie_usd``: 0 for narrowed problems, whose gap is far above it and whose solver is quicker with round costs."""
    problem, market, rules = model.problem, model.market, model.rules
    classes = model.universe.request.workload.classes
    slowest: dict[tuple[str, str, str], dict[int, float]] = defaultdict(dict)
    queue_sites: dict[tuple[str, str, str], int] = defaultdict(int)
    for option, at, ks in allowed:
        key = (option.model, option.bundle, market.pools[at].cell)
        queue_sites[key] += 1
        for k in ks:
            load = classes[k].rate_per_s * option.served[k].seconds
            slowest[key][k] = max(slowest[key].get(k, 0.0), load)
    gpus_most: dict[int, float] = defaultdict(float)
    share = model.universe.request.spot_share
    beside = (
        1 if share is None or not tie_usd else 1 + math.ceil((1 - share) / max(share, 0.1))
    )  # on-demand, for the share
    for option, at, ks in allowed:
        key = (option.model, option.bundle, market.pools[at].cell)
        a, h, _ = rules.queues[option.model, option.bundle]
        most = math.ceil((sum(slowest[key].values()) + h) / a) + queue_sites[key] + _least(model, option)
        gpus_most[at] += most * option.gpus
        count = problem.column(tie_usd * option.gpus, high=most * beside, integer=True)
        own = {k: problem.column(high=1.0) for k in ks if model.first(k)}
        flows = {k: own[model.group.get(k, k)] for k in ks}
        model.sites.append(Site(option, at, market.pools[at].cell, count, flows))
    request = model.universe.request
    spare = 4 * sum(gpus_most.values()) if request.spot_share is not None or request.pool_share is not None else 0.0
    for tier in market.tiers:
        useful = math.ceil((gpus_most.get(tier.pool, 0.0) + spare) / tier.count)
        running = tier.running or 0
        high = useful + running if tier.cap is None else min(tier.cap, useful + running)
        usd = max(tier.usd_per_hour, FREE_USD * tier.count)  # a free machine is not rented for nothing
        model.rent.append(problem.column(usd, high=high, integer=True))


def _room(market: Market, at: int, gpus: int) -> float:
    """Replicas of so many GPUs that all nodes of a pool hold; infinite when they are unbounded."""
    return sum(
        (math.inf if tier.cap is None else tier.cap) * (tier.count // gpus)
        for tier in market.tiers
        if tier.pool == at and tier.count >= gpus
    )


def _least(model: Model, option: Option) -> int:
    """Replicas that the specification wants whatever the load."""
    rules = model.universe.request.rules
    return max((r.replicas_min for r in rules if r.model == option.model and r.stage in option.stages), default=0)


def _demand(model: Model) -> None:
    """Every class, at every stage, wholly served; by cells, each serving a share of the class at all of its stages."""
    problem = model.problem
    terms: dict[tuple[int, str, str], list[tuple[int, float]]] = defaultdict(list)
    cells: dict[int, dict[str, None]] = defaultdict(dict)
    for site in model.sites:
        for k in filter(model.first, site.flows):
            cells[k][site.cell] = None
            for stage in site.option.stages:
                terms[k, site.cell, stage].append((site.flows[k], 1.0))
    for k, where in cells.items():
        stages = model.universe.stages[model.universe.request.workload.classes[k].model]
        for cell in where:
            if len(where) > 1:
                model.shares[k, cell] = problem.column(high=1.0)
            for stage in stages:
                own = terms[k, cell, stage]
                if len(where) > 1:
                    problem.row([*own, (model.shares[k, cell], -1.0)], 0.0, 0.0)
                else:
                    problem.row(own, 1.0, 1.0)
        if len(where) > 1:
            problem.row([(model.shares[k, cell], 1.0) for cell in where], 1.0, 1.0)


def _capacity(model: Model) -> None:
    """Load of each site ≤ a·replicas; of each queue (over all its GPU types) ≤ a·replicas − h, once it is open."""
    problem = model.problem
    classes = model.universe.request.workload.classes
    queues: dict[tuple[str, str, str], list[Site]] = defaultdict(list)
    for site in model.sites:
        queues[site.option.model, site.option.bundle, site.cell].append(site)
    for (name, bundle, cell), sites in queues.items():
        a, h, _multiple = model.rules.queues[name, bundle]
        loads: list[tuple[int, float]] = []
        for site in sites:
            sums: dict[int, float] = defaultdict(float)
            for k, column in site.flows.items():
                sums[column] += classes[k].rate_per_s * site.option.served[k].seconds
            own = list(sums.items())
            problem.row([*own, (site.count, -a)], upper=0.0)
            if sum(load for _, load in own) < 0.01:  # too small for the row above to force the first replica
                problem.row([*((column, 1.0) for column, _ in own), (site.count, -float(len(own)))], upper=0.0)
            loads.extend(own)
        if h > 0:
            opened = model.opened[name, bundle, cell] = problem.column(high=1.0, integer=True)
            counts = [site.count for site in sites]
            problem.row([*loads, *((count, -a) for count in counts), (opened, h)], upper=0.0)
            most = _replicas_most(model, sites)
            problem.row([*((count, 1.0) for count in counts), (opened, -most)], upper=0.0)
            for k in sorted(
                {k for site in sites for k in site.flows if model.first(k)}
            ):  # implied; makes the relaxation tight
                problem.row([*((site.flows[k], 1.0) for site in sites if k in site.flows), (opened, -1.0)], upper=0.0)


def _needed(model: Model) -> dict[int, float]:
    """Flow column → GPUs that all of it needs at the least."""
    classes = model.universe.request.workload.classes
    gpus: dict[int, float] = defaultdict(float)
    for site in model.sites:
        a, _, _ = model.rules.queues[site.option.model, site.option.bundle]
        for k, column in site.flows.items():
            gpus[column] += classes[k].rate_per_s * site.option.served[k].seconds * site.option.gpus / a
    return gpus


def _replicas_most(model: Model, sites: list[Site]) -> float:
    """Replicas that a queue may have: what its whole load needs, or what its pools hold. Tight, for the relaxation's sake."""
    pools = {site.pool: site.option.gpus for site in sorted(sites, key=lambda site: -site.option.gpus)}
    held = sum(_room(model.market, at, gpus) for at, gpus in pools.items())
    needed = max(model.problem.high[site.count] for site in sites)
    return min(held, needed)


def _pools(model: Model) -> None:
    """Replicas fit the nodes. With powers of two as sizes this is exact: for each size G, Σ (g/G)·n ≤ Σ ⌊count/G⌋·y."""
    by_pool: dict[int, list[Site]] = defaultdict(list)
    for site in model.sites:
        by_pool[site.pool].append(site)
    for at, sites in by_pool.items():
        tiers = [(model.rent[t], tier.count) for t, tier in enumerate(model.market.tiers) if tier.pool == at]
        for size in sorted({site.option.gpus for site in sites} | {1}):
            used = [(site.count, site.option.gpus / size) for site in sites if site.option.gpus >= size]
            model.problem.row(
                [*used, *((column, -float(count // size)) for column, count in tiers if count >= size)], upper=0.0
            )


def _service(model: Model) -> None:
    """Mean seconds of service of each class within its limit, in every cell."""
    rows: dict[tuple[int, str], dict[int, float]] = defaultdict(dict)
    for site in model.sites:
        for k, column in site.flows.items():
            if k in model.rules.limit_s:
                mine, part = (
                    rows[model.group.get(k, k), site.cell],
                    site.option.served[k].seconds / model.rules.limit_s[k],
                )
                mine[column] = max(mine.get(column, 0.0), part)
    for (k, cell), terms in rows.items():
        share = model.shares.get((k, cell))
        if share is None:
            model.problem.row(list(terms.items()), upper=1.0)
        else:
            model.problem.row([*terms.items(), (share, -1.0)], upper=0.0)


def _egress(model: Model) -> None:
    """What leaves a cloud between two stages: at least its output of the one less what it takes in for the next."""
    request = model.universe.request
    price = {item.cloud: item.usd_per_gib for item in request.egress}
    facts = {(fact.model, stage.stage): stage for fact in request.facts for stage in fact.stages}
    for k, item in enumerate(request.workload.classes):
        stages = model.universe.stages[item.model]
        for first, second in itertools.pairwise(stages):
            known = facts.get((item.model, first))
            size = (
                next((c.output_mib for c in known.costs if c.shape == item.shape and c.output_mib), 8.0)
                if known
                else 8.0
            )
            for cloud, usd in price.items():
                terms: dict[int, float] = {}
                for site in model.sites:
                    if model.market.pools[site.pool].cloud == cloud and k in site.flows:
                        sign = (first in site.option.stages) - (second in site.option.stages)
                        if sign:
                            terms[site.flows[k]] = float(sign)
                if terms and usd > 0:  # a group's classes share columns, not rows
                    cost = item.rate_per_s * 3600 * size / 1024 * usd
                    column = model.problem.column(cost, high=1.0)
                    model.egress.append(column)
                    model.problem.row([*terms.items(), (column, -1.0)], upper=0.0)
