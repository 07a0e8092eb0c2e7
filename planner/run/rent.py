"""A plan as wishes: which machines, where else they may come from, and which workers stand on which type of GPU. Pure."""

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from planner.domain import Offer, Role
from planner.plan.request import PlanRequest
from planner.plan.result import Plan, Row
from planner.run.fleet import Bundle, NodeWish
from planner.run.seating import Seating

MOST_OFFERS: Final = 12  # places that one launch may ask, one after another


class Share(msgspec.Struct, frozen=True):
    """``count`` workers of a role on GPUs of a type."""

    role: Role
    accelerator: str
    count: int


class Deployment(msgspec.Struct, frozen=True):
    """What a service starts with. ``parts``: USD an hour of each role on a node of a wish, by the wish's key. ``request``: what
    the planner was asked, to ask it again when the load is another."""

    plan: Plan
    wishes: tuple[NodeWish, ...]
    shares: tuple[Share, ...]
    parts: dict[str, dict[str, float]]
    request: PlanRequest | None = None

    @property
    def wanted(self) -> dict[Role, int]:
        """Workers of each role."""
        counts: dict[Role, int] = {}
        for share in self.shares:
            counts[share.role] = counts.get(share.role, 0) + share.count
        return counts

    @property
    def seating(self) -> Seating:
        """What each GPU is for."""
        return seating_of(self.plan)

    @property
    def dearest_usd_per_hour(self) -> float:
        """What it costs when every machine comes from the dearest of its offers: what the wall has to leave room for."""
        return sum(wish.count * dearest(wish.offers) for wish in self.wishes)


def deployment(
    plan: Plan, market: Iterable[Offer] = (), max_usd_per_hour: float | None = None, *, cross_cloud: bool = False
) -> Deployment:
    """``market``: offers that may stand in, those of the same cloud unless ``cross_cloud``. With a budget, the lists are cut
    where all machines together could exceed it."""
    offers = list(market)
    wishes = tuple(
        NodeWish(
            key_of(node.offer),
            fallbacks(node.offer, plan.rows, [o for o in offers if cross_cloud or o.cloud == node.offer.cloud]),
            node.nodes,
        )
        for node in plan.nodes
    )
    shares: dict[tuple[Role, str], int] = {}
    for row in plan.rows:
        for stage in row.stage.split("+"):
            place = (Role(row.model, stage), row.offer.accelerator)
            shares[place] = shares.get(place, 0) + row.replicas
    if max_usd_per_hour is not None:
        wishes = within(wishes, max_usd_per_hour)
    parts = {key_of(node.offer): _parts(node.offer, plan.rows) for node in plan.nodes}
    return Deployment(plan, wishes, tuple(Share(*place, count) for place, count in shares.items()), parts)


def seating_of(plan: Plan) -> Seating:
    """What a plan's GPUs are for. A stage on several GPUs a replica counts as one."""
    alone: dict[str, dict[Role, int]] = {}
    shared: dict[str, dict[Bundle, int]] = {}
    for row in plan.rows:
        bundle = tuple(Role(row.model, stage) for stage in row.stage.split("+"))
        if len(bundle) == 1:
            mine = alone.setdefault(row.offer.accelerator, {})
            mine[bundle[0]] = mine.get(bundle[0], 0) + row.replicas
        else:
            both = shared.setdefault(row.offer.accelerator, {})
            both[bundle] = both.get(bundle, 0) + row.replicas
    return Seating(alone, shared)


def key_of(offer: Offer) -> str:
    """Names the wish for an offer's machines."""
    return str(offer)


def dearest(offers: Sequence[Offer]) -> float:
    """USD an hour of the dearest; 0 for none."""
    return max((offer.usd_per_hour for offer in offers), default=0.0)


def fallbacks(first: Offer, rows: Iterable[Row], market: Iterable[Offer]) -> tuple[Offer, ...]:
    """``first``, then what may stand in for it: the same GPUs elsewhere or on demand, the cheapest first; after those the
    GPUs that the plan has for the same stages."""
    mine = list(rows)
    stages = {(row.model, row.stage) for row in mine if key_of(row.offer) == key_of(first)}
    fitting = {
        row.offer.accelerator
        for row in mine
        if stages and stages <= {(r.model, r.stage) for r in mine if r.offer.accelerator == row.offer.accelerator}
    }
    found: dict[str, Offer] = {key_of(first): first}
    others = [o for o in market if o.count == first.count and o.max_nodes != 0 and o.kind == first.kind]
    same = [o for o in others if o.accelerator == first.accelerator]
    other = [o for o in others if o.accelerator in fitting - {first.accelerator}]
    for group in (same, other):
        for offer in sorted(group, key=lambda o: (o.usd_per_hour, o.spot, key_of(o))):
            found.setdefault(key_of(offer), offer)
    return tuple(found.values())[:MOST_OFFERS]


def within(wishes: tuple[NodeWish, ...], max_usd_per_hour: float) -> tuple[NodeWish, ...]:
    """Drop the dearest stand-ins until the dearest machines of all wishes together fit. The first offers always stay."""
    cut = list(wishes)
    while sum(wish.count * dearest(wish.offers) for wish in cut) > max_usd_per_hour * (1 + 1e-9):
        spare = [
            (offer.usd_per_hour - wish.offers[0].usd_per_hour, at, offer)
            for at, wish in enumerate(cut)
            for offer in wish.offers[1:]
            if offer.usd_per_hour > wish.offers[0].usd_per_hour
        ]
        if not spare:
            return tuple(cut)
        _, at, worst = max(spare, key=lambda item: (item[0], -item[1]))
        left = tuple(offer for offer in cut[at].offers if offer != worst)
        cut[at] = msgspec.structs.replace(cut[at], offers=left)
    return tuple(cut)


def _parts(offer: Offer, rows: Iterable[Row]) -> dict[str, float]:
    """USD an hour of each role on the offer's machines, for telling later what a stage has cost. A bundle's is split evenly."""
    parts: dict[str, float] = {}
    for row in rows:
        if key_of(row.offer) == key_of(offer):
            stages = row.stage.split("+")
            for stage in stages:
                name = str(Role(row.model, stage))
                parts[name] = parts.get(name, 0.0) + row.usd_per_hour / len(stages)
    return parts
