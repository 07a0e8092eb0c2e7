"""Rows beside capacity: replica ranges, quotas, spot share, pool share, change penalties."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Protocol

from planner.plan.market import Market
from planner.plan.options import Option
from planner.plan.problem import Problem
from planner.plan.request import PlanRequest


class Placed(Protocol):
    """What is needed of a site."""

    option: Option
    count: int


def add_limits(
    problem: Problem,
    request: PlanRequest,
    market: Market,
    sites: Sequence[Placed],
    rent: Sequence[int],
    moves: list[tuple[int, int, int]],
) -> None:
    """Add every limit that the request sets."""
    _replicas(problem, request, sites)
    gpus = [(column, float(tier.count)) for column, tier in zip(rent, market.tiers, strict=True)]
    for q, quota in enumerate(request.quotas):
        counted = [term for term, tier in zip(gpus, market.tiers, strict=True) if q in tier.quotas]
        if counted:
            problem.row(counted, upper=float(quota.max_gpus))
    if request.spot_share is not None:
        share = request.spot_share
        problem.row(
            [
                (column, count * ((1 - share) if tier.spot else -share))
                for (column, count), tier in zip(gpus, market.tiers, strict=True)
            ],
            upper=0.0,
        )
    if request.pool_share is not None:
        _pool_share(problem, request.pool_share, market, rent)
    _changes(problem, request, market, rent, moves)


def _replicas(problem: Problem, request: PlanRequest, sites: Sequence[Placed]) -> None:
    for rule in request.rules:
        counts = [(s.count, 1.0) for s in sites if s.option.model == rule.model and rule.stage in s.option.stages]
        if counts and (rule.replicas_min > 0 or rule.replicas_max is not None):
            upper = float("inf") if rule.replicas_max is None else float(rule.replicas_max)
            problem.row(counts, float(rule.replicas_min), upper)


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
