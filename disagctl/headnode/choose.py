"""Whether a head needs a machine of its own, and which machines would do."""

from collections.abc import Iterable

from disagctl.errors import InfeasibleError
from disagctl.precheck import is_near
from disagctl.spec import Spec
from planner.domain import Offer
from planner.run.rent import MOST_OFFERS, Deployment


def wants_machine(spec: Spec) -> bool:
    """Nodes in a cloud do not reach this machine, unless the spec says by which address they do."""
    return spec.network.advertise == "auto" and any(not is_near(place) for place in spec.infra)


def places(deployment: Deployment) -> list[tuple[str, str]]:
    """(cloud, region) of the plan's machines, where most are first; then of those that may stand in."""
    counts: dict[tuple[str, str], int] = {}
    for wish in deployment.wishes:
        first = (wish.offers[0].cloud, wish.offers[0].region)
        counts[first] = counts.get(first, 0) + wish.count
    found = sorted(counts, key=lambda place: -counts[place])
    others = [(offer.cloud, offer.region) for wish in deployment.wishes for offer in wish.offers]
    return list(dict.fromkeys([*found, *others]))


def head_offers(deployment: Deployment, room_usd_per_hour: float | None) -> tuple[Offer, ...]:
    """Small machines for the head, near the others first, within what the budget leaves. Raises InfeasibleError."""
    from disagctl.provision.sky.small import small_offers  # SkyPilot takes seconds to import

    where = places(deployment)
    found = small_offers(where)
    fitting = tuple(offer for offer in found if room_usd_per_hour is None or offer.usd_per_hour <= room_usd_per_hour)
    if not fitting:
        names = ", ".join(f"{cloud}/{region}" for cloud, region in where)
        least = min((offer.usd_per_hour for offer in found), default=None)
        raise InfeasibleError(
            f"there is no machine for the head in {names}", code="no_head_machine",
            why=f"the cheapest costs ${least:.2f}/h, the budget leaves ${room_usd_per_hour or 0:.2f}/h"
            if least is not None else "SkyPilot's price lists have none without a GPU there",
            next="raise the budget, name other infra, or set network: {advertise: ADDRESS} to run it here",
        )  # fmt: skip
    return fitting[:MOST_OFFERS]


def clouds_of(infra: Iterable[str]) -> tuple[str, ...]:
    """The clouds that the spec names."""
    return tuple(dict.fromkeys(place.partition("/")[0].lower() for place in infra))
