"""Rows beside capacity: replica ranges, quotas, spot share, pool share, change penalties."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Protocol

from planner.plan.market import Market
from planner.plan.options import Option
from planner.plan.problem import Problem
from planner.plan.request import PlanRequest

LEAST_USE = 1e-3  # of the classes' flow, what a replica must take to count as in use


class Placed(Protocol):
    """What is needed of a site."""

    option: Option
    pool: int
    count: int
    flows: dict[int, int]


def add_limits(
    problem: Problem,
    request: PlanRequest,
    market: Market,
    sites: Sequence[Placed],
    rent: Sequence[int],
    moves: list[tuple[int, int, int]],
    busy: dict[int, float] | None = None,
) -> None:
    """Add every limit that the request sets. ``busy``: flow column → GPUs that it surely needs, for narrowed problems only."""
    _replicas(problem, request, sites)
    gpus = [(column, float(tier.count)) for column, tier in zip(rent, market.tiers, strict=True)]
    for q, quota in enumerate(request.quotas):
        counted = [term for term, tier in zip(gpus, market.tiers, strict=True) if q in tier.quotas]
        if counted:
            problem.row(counted, upper=float(quota.max_gpus))
    if request.spot_share is not None:
        if busy is None:
            _spot_share(problem, request.spot_share, market, sites, rent)
        else:
            _spot_below(problem, request.spot_share, market, busy, rent)
    if request.pool_share is not None:
        _pool_share(problem, request.pool_share, market, rent)
    _changes(problem, request, market, rent, moves)


def _replicas(problem: Problem, request: PlanRequest, sites: Sequence[Placed]) -> None:
    for rule in request.rules:
        counts = [(s.count, 1.0) for s in sites if s.option.model == rule.model and rule.stage in s.option.stages]
        if counts and (rule.replicas_min > 0 or rule.replicas_max is not None):
            upper = float("inf") if rule.replicas_max is None else float(rule.replicas_max)
            problem.row(counts, float(rule.replicas_min), upper)


def _spot_share(problem: Problem, share: float, market: Market, sites: Sequence[Placed], rent: Sequence[int]) -> None:
    """GPUs in use on spot ≤ share of all in use: idle nodes, and replicas without work, make no spot node safer.

    Of the replicas of one size in a pool some run on spot; those and the others pack onto nodes of their own kind.
    """
    by_pool: dict[int, list[Placed]] = defaultdict(list)
    for site in sites:
        by_pool[site.pool].append(site)
        own = dict.fromkeys(site.flows.values())
        problem.row([(site.count, LEAST_USE), *((column, -1.0) for column in own)], upper=0.0)
    used = [(site.count, -share * site.option.gpus) for site in sites]
    for at, members in by_pool.items():
        sizes = sorted({site.option.gpus for site in members})
        spot = {size: problem.column(integer=len(sizes) > 1) for size in sizes}
        used.extend((column, float(size)) for size, column in spot.items())
        for least in sizes:
            large = [(spot[size], size / least) for size in sizes if size >= least]
            every = [(site.count, site.option.gpus / least) for site in members if site.option.gpus >= least]
            room: dict[bool, list[tuple[int, float]]] = {True: [], False: []}
            for column, tier in zip(rent, market.tiers, strict=True):
                if tier.pool == at and tier.count >= least:
                    room[tier.spot].append((column, -float(tier.count // least)))
            problem.row([*large, *room[True]], upper=0.0)
            problem.row([*every, *((column, -part) for column, part in large), *room[False]], upper=0.0)
    problem.row(used, upper=0.0)


def _spot_below(problem: Problem, share: float, market: Market, busy: dict[int, float], rent: Sequence[int]) -> None:
    """The same for large problems in one row, and stricter: GPUs rented on spot ≤ share of those that the load alone needs."""
    spot = [(column, float(tier.count)) for column, tier in zip(rent, market.tiers, strict=True) if tier.spot]
    problem.row([*spot, *((column, -share * gpus) for column, gpus in busy.items())], upper=0.0)


def _pool_share(problem: Problem, share: float, market: Market, rent: Sequence[int]) -> None:
    """Spend on each spot pool ≤ share of all spend."""
    pools: dict[tuple[str, str, str], set[int]] = defaultdict(set)
    for t, tier in enumerate(market.tiers):
        if tier.spot_pool is not None:
            pools[tier.spot_pool].add(t)
    total = problem.column()
    problem.row(
        [*((column, tier.usd_per_hour) for column, tier in zip(rent, market.tiers, strict=True)), (total, -1.0)],
        0.0,
        0.0,
    )
    for members in pools.values():
        problem.row([*((rent[t], market.tiers[t].usd_per_hour) for t in sorted(members)), (total, -share)], upper=0.0)


def _changes(
    problem: Problem, request: PlanRequest, market: Market, rent: Sequence[int], moves: list[tuple[int, int, int]]
) -> None:
    """y = y0 + started − stopped, each at its penalty."""
    for t, tier in enumerate(market.tiers):
        if tier.running is not None:
            started = problem.column(request.start_penalty * tier.usd_per_hour)
            stopped = problem.column(request.stop_penalty * tier.usd_per_hour)
            problem.row([(rent[t], 1.0), (started, -1.0), (stopped, 1.0)], float(tier.running), float(tier.running))
            moves.append((t, started, stopped))
