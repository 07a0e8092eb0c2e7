"""Small machines without a GPU, from SkyPilot's price lists: what a head needs."""

import contextlib
import sys
from collections.abc import Iterable
from typing import Final

from disagctl.provision.sky.client import library
from planner.domain import Offer

CPUS: Final = "2+"
MEMORY_GIB: Final = "8+"  # the head takes little; SkyPilot's API server beside it takes gigabytes


def small_offers(places: Iterable[tuple[str, str]]) -> list[Offer]:
    """One a (cloud, region), in their order; places without such a machine, or without its price, are left out."""
    library()
    from sky import catalog

    found: list[Offer] = []
    for cloud, region in places:
        try:
            with contextlib.redirect_stdout(sys.stderr):  # standard output is for data
                kind = catalog.get_default_instance_type(CPUS, MEMORY_GIB, region=region or None, clouds=cloud)
                price = catalog.get_hourly_cost(kind, False, region or None, None, clouds=cloud) if kind else 0.0
        except (ValueError, KeyError, NotImplementedError, OSError):
            continue
        if kind and price > 0:
            found.append(Offer(cloud, region, kind, "", 0, spot=False, usd_per_hour=float(price)))
    return found
