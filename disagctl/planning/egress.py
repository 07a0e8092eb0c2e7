"""What a cloud takes for a GiB that leaves it: the spec's word, else the shipped prices."""

from collections.abc import Iterable
from functools import cache

from disagctl.errors import SpecError
from disagctl.planning import shipped
from disagctl.planning.catalogs import UNPRICED, canonical_cloud
from disagctl.planning.files import Lines
from disagctl.spec.infra import PLACES
from disagctl.spec.schema import Spec
from disagctl.spec.suggest import did_you_mean
from planner.domain import Offer
from planner.facts.table import number, read, word
from planner.plan import Egress


def egress(spec: Spec, offers: Iterable[Offer], lines: Lines) -> tuple[tuple[Egress, ...], list[str]]:
    """(prices of the clouds in use, warnings). Raises SpecError for a price of a cloud that nobody knows."""
    clouds = sorted({offer.cloud for offer in offers})
    wished = {canonical_cloud(name): usd for name, usd in spec.placement.egress_usd_per_gib.items()}
    for name in wished:
        if name not in clouds and name not in PLACES:
            at = lines.at("placement", "egress_usd_per_gib", name)
            raise SpecError(f"{at}: {name[:40]!r} is no cloud known here", why=did_you_mean(name, [*clouds, *PLACES]))
    if not spec.placement.cross_cloud:
        return (), []
    prices = {**default_prices(), **dict.fromkeys(UNPRICED, 0.0), **wished}
    unsaid = [cloud for cloud in clouds if cloud not in prices]
    said = f"what data costs that leaves {', '.join(unsaid)} is not known: taken as free (placement.egress_usd_per_gib)"
    return tuple(Egress(cloud, prices[cloud]) for cloud in clouds if cloud in prices), [said] if unsaid else []


@cache
def default_prices() -> dict[str, float]:
    """The shipped prices, by cloud: USD a GiB."""
    rows, _ = read(shipped.text(shipped.EGRESS), shipped.EGRESS, ("cloud", "usd_per_gib", "as_of", "source"))
    return {word(row, "cloud"): number(row, "usd_per_gib", least=0) for row in rows}
