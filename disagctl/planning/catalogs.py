"""Where prices come from: a CSV of the user's, the shipped snapshot, or SkyPilot's own catalog (``--catalog sky``)."""

import csv
import io
import re
from collections.abc import Iterable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Final

import msgspec

from disagctl import clock
from disagctl.errors import SpecError
from disagctl.planning import shipped
from disagctl.planning.files import read_csv, refuse_fatal
from planner.domain import Defect, Offer
from planner.facts import parse_catalog

SHIPPED: Final = "shipped"
SKY: Final = "sky"
OLD_DAYS: Final = 90
UNPRICED: Final = frozenset({"local", "slurm", "kubernetes", "k8s", "ssh"})  # what they cost, only their owner knows
_DATE = re.compile(r"(\d{4})(?:-(\d{2}))?(?:-(\d{2}))?")


class Catalog(msgspec.Struct):
    """Offers with the date of each (by ``Offer.where``). ``label``: what to call it."""

    label: str
    offers: list[Offer]
    defects: list[Defect]
    dates: dict[str, str]

    def as_of(self, offer: Offer) -> str:
        """When the offer's price was seen: a day, a month or a year."""
        return self.dates.get(offer.where, "")


def load_catalog(choice: str | None, clouds: Iterable[str]) -> Catalog:
    """``choice``: None or ``shipped``, ``sky``, or a file. Raises SpecError naming file and line of the first bad row."""
    if choice == SKY:
        return _from_sky(clouds)
    if choice is None or choice == SHIPPED:
        return _parsed(
            shipped.text(shipped.PRICES),
            shipped.PRICES,
            f"the shipped snapshot of {shipped.SNAPSHOT}",
            "",
            strict=False,
        )
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
    return Catalog(label, offers, defects, _dates(text, name, default_date))


def _dates(text: str, name: str, default: str) -> dict[str, str]:
    """The column ``as_of``, by file:line; parse_catalog has said already what is wrong with the text."""
    rows = csv.reader(io.StringIO(text.removeprefix("\ufeff"), newline=""))
    dates: dict[str, str] = {}
    column: int | None = None
    header = False
    try:
        for cells in rows:
            if not header and any(cells) and not cells[0].lstrip().startswith("#"):
                names = [cell.strip().lower() for cell in cells]
                column, header = (names.index("as_of") if "as_of" in names else None), True
                continue
            written = cells[column].strip() if column is not None and column < len(cells) else ""
            dates[f"{name}:{rows.line_num}"] = written or default
    except csv.Error:
        return dates
    return dates


def _from_sky(clouds: Iterable[str]) -> Catalog:
    """SkyPilot's catalogs as they lie on this disk; never fetched from here."""
    from disagctl.provision.sky_catalog import SkyMissing, list_prices

    try:
        text, seen = list_prices([cloud for cloud in clouds if cloud not in UNPRICED])
    except SkyMissing as err:
        raise SpecError(
            "SkyPilot's catalog cannot be used", why=str(err), next="leave --catalog out for the shipped prices, or name a CSV",
            code="catalog_missing",
        ) from err  # fmt: skip
    return _parsed(text, SKY, "SkyPilot's catalog", seen, strict=False)
