"""Where prices come from: CSV files of the user's, the shipped snapshot, SkyPilot's own catalog (``sky``), or several."""

import re
from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Final

import msgspec
from msgspec.structs import replace

from disagctl import clock
from disagctl.errors import SpecError
from disagctl.planning import shipped
from disagctl.planning.files import read_csv, refuse_fatal
from planner.domain import Defect, Offer
from planner.facts import parse_catalog
from planner.facts.table import BadCell, Cells, number, read

SHIPPED: Final = "shipped"
SKY: Final = "sky"
OLD_DAYS: Final = 90
UNPRICED: Final = frozenset({"local", "slurm", "kubernetes", "ssh"})  # what they cost, only their owner knows
_SYNONYMS: Final = {"k8s": "kubernetes"}
_DATE = re.compile(r"(\d{4})(?:-(\d{2}))?(?:-(\d{2}))?")


class RowFacts(msgspec.Struct, frozen=True):
    """What a catalog says of a row beside its offers. None: nothing."""

    as_of: str = ""
    cpus: float | None = None
    memory_gib: float | None = None


class Catalog(msgspec.Struct):
    """Offers, and what else is known of each (by ``Offer.where``). ``label``: what to call it."""

    label: str
    offers: list[Offer]
    defects: list[Defect]
    facts: dict[str, RowFacts]

    def of(self, offer: Offer) -> RowFacts:
        """What the offer's row says besides."""
        return self.facts.get(offer.where, RowFacts())

    def as_of(self, offer: Offer) -> str:
        """When the offer's price was seen: a day, a month or a year."""
        return self.of(offer).as_of


def canonical_cloud(name: str) -> str:
    """``K8s`` → ``kubernetes``; other names in lower case."""
    name = name.strip().lower()
    return _SYNONYMS.get(name, name)


def load_catalog(choice: str | Sequence[str] | None, clouds: Iterable[str]) -> Catalog:
    """``choice``: ``shipped`` (also when empty), ``sky``, files. Of an offer that several have, the first one's price counts.

    Raises SpecError naming file and line of the first bad row.
    """
    choices = [choice] if isinstance(choice, str) else list(choice or [SHIPPED])
    clouds = list(clouds)
    made = [_load(one, clouds) for one in dict.fromkeys(choices)]
    if len(made) == 1:
        return made[0]
    offers: dict[tuple[object, ...], Offer] = {}
    for catalog in made:
        for offer in catalog.offers:
            key = (offer.cloud, offer.region, offer.instance_type, offer.accelerator, offer.count, offer.spot)
            offers.setdefault(key, offer)
    return Catalog(
        " and ".join(catalog.label for catalog in made),
        list(offers.values()),
        [defect for catalog in made for defect in catalog.defects],
        {where: facts for catalog in made for where, facts in catalog.facts.items()},
    )


def _load(choice: str, clouds: list[str]) -> Catalog:
    if choice == SKY:
        return _from_sky(clouds)
    if choice == SHIPPED:
        label = f"the shipped snapshot of {shipped.SNAPSHOT}"
        return _parsed(shipped.text(shipped.PRICES), shipped.PRICES, label, "", strict=False)
    path = Path(choice)
    text = read_csv(path, "catalog")
    seen = datetime.fromtimestamp(path.stat().st_mtime, UTC).date().isoformat()
    made = _parsed(text, str(path), str(path), seen, strict=True)
    refuse_fatal(made.defects, "catalog_invalid")
    return made


def days_old(as_of: str) -> int | None:
    """Days since the earliest day that ``2025``, ``2026-01`` or ``2026-09-25`` may mean; None when nothing is said."""
    match = _DATE.match(as_of)
    if match is None:
        return None
    year, month, day = (int(part) if part else 1 for part in match.groups())
    try:
        then = date(year, month, day)
    except ValueError:
        return None
    return max((datetime.fromtimestamp(clock.wall_s(), UTC).date() - then).days, 0)


def age(as_of: str) -> str:
    """``57 d``, ``10 mo``, ``2 y``: how old a price is, for a narrow column."""
    days = days_old(as_of)
    if days is None:
        return "?"
    if days < 90:
        return f"{days} d"
    return f"{days // 30} mo" if days < 730 else f"{days // 365} y"


def _parsed(text: str, name: str, label: str, default_date: str, *, strict: bool) -> Catalog:
    offers, defects = parse_catalog(text, name, strict=strict)
    offers = [replace(o, cloud=canonical_cloud(o.cloud)) if o.cloud in _SYNONYMS else o for o in offers]
    if strict and not offers and not any(defect.fatal for defect in defects):
        why = defects[0].message if defects else "it has no rows"
        defects.append(Defect(defects[0].where if defects else f"{name}:1", f"no offer is left: {why}", fatal=True))
    facts = {}
    for row in read(text, name, ())[0]:
        try:
            facts[row.where] = _row_facts(row, default_date)
        except BadCell as error:
            facts[row.where] = RowFacts(row.text("as_of") or default_date)
            defects.append(Defect(row.where, str(error), fatal=strict))
    return Catalog(label, offers, defects, facts)


def _row_facts(row: Cells, default_date: str) -> RowFacts:
    """The columns that no plan needs."""
    return RowFacts(
        row.text("as_of") or default_date,
        number(row, "cpus", above=0) if row.text("cpus") else None,
        number(row, "memory_gib", above=0) if row.text("memory_gib") else None,
    )


def _from_sky(clouds: Iterable[str]) -> Catalog:
    """SkyPilot's catalogs as they lie on this disk; never fetched from here."""
    from disagctl.provision.sky_catalog import SkyMissing, list_prices

    try:
        text, seen = list_prices(
            [place for place in clouds if canonical_cloud(place.partition("/")[0]) not in UNPRICED]
        )
    except SkyMissing as err:
        raise SpecError(
            "SkyPilot's catalog cannot be used", why=str(err), next="leave --catalog out for the shipped prices, or name a CSV",
            code="catalog_missing",
        ) from err  # fmt: skip
    return _parsed(text, SKY, "SkyPilot's catalog", seen, strict=False)
