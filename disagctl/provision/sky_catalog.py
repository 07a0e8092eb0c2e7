"""SkyPilot's price lists as they lie on this disk, as a catalog CSV. One of the two doors to SkyPilot; slow to import."""

import contextlib
import csv
import io
import math
import os
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, Final

COLUMNS: Final = (
    "cloud",
    "region",
    "instance_type",
    "accelerator",
    "count",
    "price",
    "spot_price",
    "max_nodes",
    "cpus",
    "memory_gib",
    "as_of",
)


class SkyMissing(Exception):
    """SkyPilot is not installed, or has no price list on this disk."""


def list_prices(infra: Iterable[str]) -> tuple[str, str]:
    """(CSV, date of the oldest list) of the clouds that have a list on this disk; ``infra`` empty: all of those.

    A list that is old by SkyPilot's own rule is refreshed by SkyPilot, if it can reach the network; where there is no list,
    nothing is fetched.
    """
    try:
        from sky import catalog
        from sky.catalog import common
        from sky.skylet import constants
    except ImportError as err:
        raise SkyMissing("SkyPilot is not installed: pip install 'disagctl[sky]'") from err
    wanted = [place.partition("/")[0].lower() for place in infra] or [
        str(cloud).lower() for cloud in constants.ALL_CLOUDS
    ]
    files = {cloud: common.get_catalog_path(f"{cloud}/vms.csv") for cloud in dict.fromkeys(wanted)}
    here = {cloud: path for cloud, path in files.items() if _stamp(path) is not None}
    if not here:
        raise SkyMissing(f"it has no price list of {', '.join(files)} on this disk; `sky check` fetches them")
    before = {cloud: _stamp(path) for cloud, path in here.items()}
    with contextlib.redirect_stdout(sys.stderr):  # it may show a spinner
        found = catalog.list_accelerators(gpus_only=True, clouds=list(here), all_regions=True)
    dates = {cloud: _date(before[cloud], _stamp(path)) for cloud, path in here.items()}
    rows = (_row(info, dates) for infos in found.values() for info in infos)
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(sorted(rows))
    return out.getvalue(), min(dates.values())


def _row(info: Any, dates: dict[str, str]) -> tuple[str, ...]:
    cloud = str(info.cloud).lower()
    numbers = (_amount(info.accelerator_count), _amount(info.price), _amount(info.spot_price))
    return (
        cloud,
        str(info.region),
        str(info.instance_type),
        str(info.accelerator_name),
        *numbers,
        "",
        _amount(info.cpu_count),
        _amount(info.memory),
        dates.get(cloud, ""),
    )


def _amount(value: Any) -> str:
    """Pandas leaves NaN where a list says nothing; a price of 0 says nothing either."""
    number = float(value) if value is not None else math.nan
    return f"{number:g}" if math.isfinite(number) and number > 0 else ""


def _stamp(path: str) -> tuple[int, float] | None:
    """(file's identity, time of its last change)."""
    try:
        found = os.stat(path)  # noqa: PTH116  # the path is SkyPilot's, a text
    except OSError:
        return None
    return found.st_ino, found.st_mtime


def _date(before: tuple[int, float] | None, after: tuple[int, float] | None) -> str:
    """A refresh puts a new file in place; a failed one only touches the old, which does not make its prices newer."""
    stamp = after if before is None or (after is not None and after[0] != before[0]) else before
    return datetime.fromtimestamp(stamp[1] if stamp else 0.0, UTC).date().isoformat()
