"""A catalog CSV into offers. Clouds' own price lists are full of defects; each is rejected or flagged with its line.

Columns: cloud,region,instance_type,accelerator,count,price,spot_price,max_nodes[,launch_s]; USD an hour a node.
"""

import statistics
from collections import defaultdict

import msgspec

from planner.domain import Defect, Gpu, Offer
from planner.facts import names
from planner.facts.table import BadCell, Cells, number, read, whole, word

REQUIRED = ("cloud", "region", "instance_type", "accelerator", "count", "price")
SPOT_BELOW = 0.95  # a spot price nearer to the on-demand price than this is a stale or made-up row
OUTLIER = 2.0  # times the median price per GPU of the accelerator
MOST_GPUS = 16  # on one node
OWN = frozenset({"local", "slurm", "kubernetes", "k8s", "ssh"})  # machines that may cost their owner nothing


def parse_catalog(text: str, name: str = "catalog", *, strict: bool = True) -> tuple[list[Offer], list[Defect]]:
    """Offers of a catalog CSV; a row gives an on-demand and a spot offer.

    ``strict`` (a file the user wrote): a malformed row is fatal, use none of the offers. Otherwise (a cloud's list) the row
    is left out and its defect is not fatal; only a missing column is.
    """
    rows, defects = read(text, name, REQUIRED)
    offers: dict[tuple[object, ...], Offer] = {}
    for row in rows:
        try:
            found = _offers(row, defects)
        except BadCell as error:
            defects.append(Defect(row.where, str(error), fatal=strict))
            continue
        for offer in found:
            key = (offer.cloud, offer.region, offer.instance_type, offer.accelerator, offer.count, offer.spot)
            other = offers.get(key)
            if other is not None:
                defects.append(Defect(row.where, f"the same offer as {other.where}: the cheaper row is kept"))
            if other is None or offer.usd_per_hour < other.usd_per_hour:
                offers[key] = offer
    if not rows and not defects:
        defects.append(Defect(f"{name}:1", "no rows", fatal=True))
    kept = list(offers.values())
    defects.extend(_outliers(kept))
    return kept, defects


def _offers(row: Cells, defects: list[Defect]) -> list[Offer]:
    written = word(row, "accelerator")
    accelerator = names.canonical(written)
    if accelerator is None:
        if names.ignored(written):
            defects.append(Defect(row.where, f"accelerator {written} is not planned for: row left out"))
            return []
        raise BadCell(f"unknown GPU {written!r} (SkyPilot's names are used: {', '.join(names.known()[:8])} …)")
    count = number(row, "count", above=0)
    if count != int(count):
        defects.append(Defect(row.where, f"count {count:g}: a fraction of a GPU is not planned for: row left out"))
        return []
    if count > MOST_GPUS or (count > 8 and count != MOST_GPUS):
        defects.append(Defect(row.where, f"count {count:g}: no node has so many {accelerator}: row left out"))
        return []
    cloud = word(row, "cloud").lower()
    price = number(row, "price", **({"least": 0.0} if cloud in OWN else {"above": 0.0})) if row.text("price") else None
    spot = number(row, "spot_price", above=0) if row.text("spot_price") else None
    if price is None and spot is None:
        defects.append(Defect(row.where, "neither price nor spot_price: row left out"))
        return []
    if price == 0 and not row.text("max_nodes"):
        raise BadCell("a machine that costs nothing needs max_nodes: how many are there?")
    if price is not None and spot is not None and spot >= SPOT_BELOW * price:
        defects.append(
            Defect(row.where, f"spot_price {spot:g} is not below {SPOT_BELOW:g} of price {price:g}: spot left out")
        )
        spot = None
    base = Offer(
        cloud=cloud,
        region=word(row, "region"),
        instance_type=word(row, "instance_type"),
        accelerator=accelerator,
        count=int(count),
        spot=False,
        usd_per_hour=0.0,
        max_nodes=whole(row, "max_nodes") if row.text("max_nodes") else None,
        launch_s=number(row, "launch_s", default=300.0, least=0),
        where=row.where,
    )
    kinds = ((False, price), (True, spot))
    return [msgspec.structs.replace(base, spot=kind, usd_per_hour=usd) for kind, usd in kinds if usd is not None]


def _outliers(offers: list[Offer]) -> list[Defect]:
    prices: dict[tuple[str, bool], list[float]] = defaultdict(list)
    for offer in offers:
        prices[offer.accelerator, offer.spot].append(offer.usd_per_hour / offer.count)
    middle = {key: statistics.median(values) for key, values in prices.items()}
    return [
        Defect(offer.where, f"{offer}: ${each:.2f} a GPU is {each / usual:.1f} times the median of {offer.accelerator}")
        for offer in offers
        for each, usual in [(offer.usd_per_hour / offer.count, middle[offer.accelerator, offer.spot])]
        if each > OUTLIER * usual and usual > 0
    ]


def parse_gpus(text: str, name: str = "gpus") -> list[Gpu]:
    """GPU facts from a CSV like gpu-specs.csv. A malformed row is a ValueError with file:line (the file is ours)."""
    rows, defects = read(text, name, ("accelerator", "mem_gb", "mem_usable_gb", "bw_gbs", "fp16_tflops_dense", "bf16"))
    if defects:
        raise ValueError(f"{defects[0].where}: {defects[0].message}")
    gpus: list[Gpu] = []
    for row in rows:
        try:
            gpus.append(
                Gpu(
                    name=names.canonical(word(row, "accelerator")) or word(row, "accelerator"),
                    memory_gib=number(row, "mem_gb", above=0),
                    usable_gib=number(row, "mem_usable_gb", above=0),
                    bandwidth_gbs=number(row, "bw_gbs", above=0),
                    tflops=number(row, "fp16_tflops_dense", above=0),
                    fp8_tflops=number(row, "fp8_tflops_dense", default=0.0, least=0),
                    bf16=row.text("bf16") == "yes",
                    note=row.text("note"),
                )
            )
        except BadCell as error:
            raise ValueError(f"{row.where}: {error}") from None
    return gpus
