"""Offers into what the problem rents: price tiers of like nodes, grouped by where their GPUs can be used.

A *cell* is where all stages of a request must run: a cloud, or everything when cross-cloud placement is allowed. A *pool*
is the GPUs of one type that replicas can be put on without distinction: (cloud, accelerator), split by spot only when a
stage demands one or the other. A *tier* is a set of offers that the problem cannot tell apart.
"""

from collections import defaultdict

import msgspec

from planner.domain import Offer
from planner.plan.request import PlanRequest, Quota


class Pool(msgspec.Struct, frozen=True):
    """``spot`` None: both kinds."""

    cell: str
    cloud: str
    gpu: str
    spot: bool | None
    kind: str = ""  # of its offers: what rules that name kinds go by


class Tier(msgspec.Struct, frozen=True):
    """Offers of one price, cheapest first within (all equal). ``cap`` None: unbounded. ``quotas``: indices that count it."""

    pool: int
    count: int
    spot: bool
    usd_per_hour: float
    cap: int | None
    offers: tuple[Offer, ...]
    spot_pool: tuple[str, str, str] | None
    quotas: tuple[int, ...]
    running: int | None  # nodes that run already; None: not tracked


class Market(msgspec.Struct, frozen=True):
    """All pools and tiers."""

    pools: tuple[Pool, ...]
    tiers: tuple[Tier, ...]


def in_infra(offer: Offer, infra: tuple[str, ...]) -> bool:
    """Whether the offer is within ``aws`` or ``aws/us-east-1``; no list means everywhere."""
    return not infra or any(one in {offer.cloud, f"{offer.cloud}/{offer.region}"} for one in infra)


def usable_offers(request: PlanRequest) -> list[Offer]:
    """Offers that the request's filters leave."""
    return [
        o for o in request.offers if in_infra(o, request.infra) and (request.spot or not o.spot) and o.max_nodes != 0
    ]


def matches(quota: Quota, offer: Offer) -> bool:
    """Whether the quota counts this offer."""
    return (
        quota.cloud in {None, offer.cloud}
        and quota.region in {None, offer.region}
        and quota.accelerator in {None, offer.accelerator}
        and quota.spot in {None, offer.spot}
    )


def sku(offer: Offer) -> tuple[str, str, str, str, int, bool]:
    """What an offer is, apart from its price."""
    return offer.cloud, offer.region, offer.instance_type, offer.accelerator, offer.count, offer.spot


def open_market(request: PlanRequest) -> Market:
    """Pools and tiers of a request; tiers that another always serves as well for no more money are left out (lossless)."""
    split = any(rule.spot is not None for rule in request.rules)
    running = {sku(run.offer): run.nodes for run in request.running}
    pools: dict[Pool, int] = {}
    groups: dict[tuple[object, ...], list[Offer]] = defaultdict(list)
    for offer in usable_offers(request):
        pool = Pool(
            "" if request.cross_cloud else offer.cloud,
            offer.cloud,
            offer.accelerator,
            offer.spot if split else None,
            offer.kind,
        )
        at = pools.setdefault(pool, len(pools))
        spot_pool = (
            (offer.cloud, offer.region, offer.accelerator) if offer.spot and request.pool_share is not None else None
        )
        counted = tuple(q for q, quota in enumerate(request.quotas) if matches(quota, offer))
        mark = sku(offer) if running else None
        side = offer.spot if request.spot_share is not None else None
        groups[at, offer.count, spot_pool, counted, mark if mark in running else None, side, offer.usd_per_hour].append(
            offer
        )
    tiers = [_tier(key, offers, running) for key, offers in groups.items()]
    return Market(
        tuple(pools), tuple(_undominated(tiers, track_spot=request.spot_share is not None, moving=bool(running)))
    )


def _tier(
    key: tuple[object, ...], offers: list[Offer], running: dict[tuple[str, str, str, str, int, bool], int]
) -> Tier:
    caps = [offer.max_nodes for offer in offers]
    bounded = [cap for cap in caps if cap is not None]
    offers = sorted(offers, key=lambda offer: (offer.max_nodes is None, offer.spot, sku(offer)))
    pool, _, spot_pool, counted, mark = key[:5]
    return Tier(
        pool=pool,  # type: ignore[arg-type]
        count=offers[0].count,
        spot=offers[0].spot,
        usd_per_hour=offers[0].usd_per_hour,
        cap=sum(bounded) if len(bounded) == len(caps) else None,
        offers=tuple(offers),
        spot_pool=spot_pool,  # type: ignore[arg-type]
        quotas=counted,  # type: ignore[arg-type]
        running=running.get(mark, 0) if mark is not None else (0 if running else None),  # type: ignore[call-overload]
    )


def _undominated(tiers: list[Tier], *, track_spot: bool, moving: bool) -> list[Tier]:
    """Drop tiers dearer than an unbounded one that no constraint tells from them."""
    if moving:
        return tiers
    cheapest: dict[tuple[object, ...], float] = {}
    for tier in tiers:
        if tier.cap is None:
            key = (tier.pool, tier.count, tier.spot_pool, tier.quotas, tier.spot if track_spot else None)
            cheapest[key] = min(cheapest.get(key, tier.usd_per_hour), tier.usd_per_hour)
    kept = []
    for tier in tiers:
        key = (tier.pool, tier.count, tier.spot_pool, tier.quotas, tier.spot if track_spot else None)
        if tier.usd_per_hour <= cheapest.get(key, tier.usd_per_hour):
            kept.append(tier)
    return kept
