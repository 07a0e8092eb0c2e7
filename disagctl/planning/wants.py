"""What a stage may run on: SkyPilot's ``resources`` as tests that an offer passes or not."""

import re
from collections.abc import Iterator
from typing import Any

import msgspec

from disagctl.planning.catalogs import RowFacts, canonical_cloud
from disagctl.spec.schema import Resources
from disagctl.spec.suggest import did_you_mean
from planner.domain import Offer
from planner.facts.names import canonical, ignored, known

_COUNTED = re.compile(r"\s*([^:]+?)\s*(?::\s*(\d+(?:\.0+)?))?\s*")
_AMOUNT = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*(?:gib|gb)?(\+?)", re.IGNORECASE)


class Amount(msgspec.Struct, frozen=True):
    """``8`` is exactly eight, ``8+`` at least eight."""

    value: float
    or_more: bool

    def admits(self, have: float | None) -> bool:
        """Whether so much will do; what nobody says is not held against an offer."""
        return have is None or (have >= self.value if self.or_more else have == self.value)


class Want(msgspec.Struct, frozen=True):
    """One kind of machine that a stage may run on. None: any. ``accelerators``: (name, GPUs of the node; None: any)."""

    accelerators: tuple[tuple[str, int | None], ...] | None = None
    spot: bool | None = None
    cloud: str | None = None
    region: str | None = None
    instance_type: str | None = None
    cpus: Amount | None = None
    memory_gib: Amount | None = None
    max_usd_per_hour: float | None = None

    @property
    def plain(self) -> bool:
        """Whether the GPU's name and spot are all it asks for: the planner knows those by itself."""
        counted = any(count is not None for _, count in self.accelerators or ())
        rest = (self.cloud, self.region, self.instance_type, self.cpus, self.memory_gib, self.max_usd_per_hour)
        return not counted and all(one is None for one in rest)

    def admits(self, offer: Offer, facts: RowFacts) -> bool:
        """Whether the offer will do."""
        cards = self.accelerators or ((offer.accelerator, None),)
        return (
            any(name == offer.accelerator and count in {None, offer.count} for name, count in cards)
            and self.spot in {None, offer.spot}
            and self.cloud in {None, offer.cloud}
            and self.region in {None, offer.region}
            and self.instance_type in {None, offer.instance_type}
            and (self.cpus is None or self.cpus.admits(facts.cpus))
            and (self.memory_gib is None or self.memory_gib.admits(facts.memory_gib))
            and (self.max_usd_per_hour is None or offer.usd_per_hour <= self.max_usd_per_hour)
        )


def wants_of(resources: Resources) -> tuple[Want, ...]:
    """Any of these will do. ``any_of`` and ``ordered`` override what stands beside them. Raises ValueError."""
    if resources.any_of is not None and resources.ordered is not None:
        raise ValueError("any_of and ordered exclude each other")
    base = msgspec.structs.asdict(resources)
    variants = resources.any_of or resources.ordered or [{}]
    return tuple(_want({**base, **_without_place(base, variant)}) for variant in variants)


def _without_place(base: dict[str, Any], variant: dict[str, Any]) -> dict[str, Any]:
    """A variant's ``infra`` stands in for the cloud and region beside it, and the other way round."""
    if variant.get("infra") is not None:
        return {"cloud": None, "region": None, "zone": None, **variant}
    places = {"cloud", "region", "zone"} & variant.keys()
    return {**({"infra": None} if places and base["infra"] is not None else {}), **variant}


def _want(keys: dict[str, Any]) -> Want:
    cloud, region = keys["cloud"], keys["region"]
    if keys["infra"] is not None:
        if cloud is not None or region is not None or keys["zone"] is not None:
            raise ValueError("infra excludes cloud, region and zone")
        cloud, region = place(str(keys["infra"]))
    return Want(
        accelerators=tuple(_accelerators(keys["accelerators"])) if keys["accelerators"] is not None else None,
        spot=keys["use_spot"],
        cloud=canonical_cloud(cloud) if cloud is not None else None,
        region=region,
        instance_type=keys["instance_type"],
        cpus=_amount("cpus", keys["cpus"]),
        memory_gib=_amount("memory", keys["memory"]),
        max_usd_per_hour=keys["max_hourly_cost"],
    )


def place(written: str) -> tuple[str | None, str | None]:
    """``aws/us-east-1/us-east-1a`` → cloud and region; ``*`` is any."""
    parts = [None if part in {"", "*"} else part for part in written.split("/")]
    if len(parts) > 3:
        raise ValueError(f"infra {written[:60]!r} is not CLOUD/REGION/ZONE")
    cloud = canonical_cloud(parts[0]) if parts[0] is not None else None
    return cloud, parts[1] if len(parts) > 1 else None


def _amount(key: str, written: Any) -> Amount | None:
    if written is None:
        return None
    match = _AMOUNT.fullmatch(str(written).strip())
    if match is None or not 0 < float(match[1]) < 1e6:
        raise ValueError(f"{key} cannot be {str(written)[:40]!r}: write 8, or 8+ for at least 8")
    return Amount(float(match[1]), match[2] == "+")


def _accelerators(wished: str | list[str] | dict[str, float]) -> Iterator[tuple[str, int | None]]:
    """``L4``, ``H100:8``, a list of those, or {H100: 8}."""
    items = [wished] if isinstance(wished, str) else list(wished)
    if not items:
        raise ValueError("accelerators is empty")
    for item in items:
        count = wished[item] if isinstance(wished, dict) else None
        match = _COUNTED.fullmatch(item)
        name = canonical(match[1]) if match else None
        if match is None or name is None:
            written = item.partition(":")[0]
            why = "it is not planned for" if ignored(written) else did_you_mean(written, known())
            raise ValueError(f"unknown accelerator {item[:40]!r}{' — ' if why else ''}{why}")
        number = count if count is not None else (float(match[2]) if match[2] else None)
        if number is not None and (number < 1 or number != int(number)):
            raise ValueError(f"{number:g} GPUs of {name} will not do: it is a whole number, at least 1")
        yield name, int(number) if number is not None else None
