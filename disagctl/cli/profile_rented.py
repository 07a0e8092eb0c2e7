"""disagctl profile on rented GPUs: what it would rent, a question, the measuring, the rows."""

import asyncio
import csv
import io
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from disagctl.errors import InfeasibleError, UsageError
from disagctl.spec.schema import SYNTHETIC

if TYPE_CHECKING:
    from disagctl.profiling.errand import Result
    from disagctl.profiling.leases import Lease
    from disagctl.profiling.rented import Wish
    from planner.domain import Offer


def wish_of(
    model: str,
    infra: str,
    device: str | None,
    catalog: str | None,
    budget: float | None,
    limit_s: float,
    argv: list[str],
) -> "Wish":
    """What is to be rented. Raises DisagctlError where nothing can be."""
    from disagctl.profiling.rented import Wish, find_offers
    from disagctl.settings import secret

    gpus = [part.strip() for part in (device or "").split(",") if part.strip()]
    if not gpus:
        raise UsageError("--infra needs --device", why="it says which GPUs to rent", next="--device H100,L4")
    if budget is not None and not budget > 0:
        raise UsageError("--budget is an amount of dollars an hour, more than nothing")
    folder = Path(model)
    local = folder.is_dir()
    places = [part.strip() for part in infra.split(",") if part.strip()]
    return Wish(
        find_offers(places, gpus, catalog, budget),
        (str(folder.resolve()) if local else model, *argv),
        limit_s,
        folders=(str(folder.resolve()),) if local else (),
        secrets=("HF_TOKEN",) if not local and model != SYNTHETIC and secret("HF_TOKEN") else (),
    )


def run(wish: "Wish", file: Path, *, yes: bool, output: str) -> None:
    """Ask, rent, measure, write. What one GPU gave is kept, should a later one fail."""
    from disagctl.cli.output import confirm, say
    from disagctl.profiling.rented import measure
    from disagctl.profiling.rows import write
    from disagctl.provision.choose import rented

    for gpu, offers in wish.offers.items():
        more = f", else {len(offers) - 1} dearer" if len(offers) > 1 else ""
        say(f"{gpu}: {offers[0]} at ${offers[0].usd_per_hour:.2f}/h{more}")
    given = f" {', '.join(wish.secrets)} is given to them." if wish.secrets else ""
    confirm(
        f"Rent {len(wish.offers)} machine(s), one after the other, for ${wish.most_usd:.2f} at the most?{given}",
        yes=yes,
        verb="profile",
    )
    counts: dict[str, int] = {}

    def take(gpu: str, result: "Result", offer: "Offer") -> None:
        rows = list(csv.DictReader(io.StringIO(result.rows)))
        if not rows:
            raise InfeasibleError(
                f"nothing was measured on {gpu}", why=result.said.strip()[-300:] or f"it ended with {result.code}",
                code="nothing_measured",
            )  # fmt: skip
        for row in rows:
            row["origin"] = f"{row['origin']}; on {offer.cloud}/{offer.region} {offer.instance_type}"
        write(file, rows)
        counts[gpu] = len(rows)
        others = sorted({row["gpu"] for row in rows} - {gpu})
        if others:
            say(f"{gpu}: the machine showed no such GPU: its rows are of {', '.join(others)}")

    rent = partial(rented, torch=wish.argv[0] != SYNTHETIC)
    lease = asyncio.run(measure(wish, rent, say, take))
    _tell(lease, counts, file, output)


def _tell(lease: "Lease", counts: dict[str, int], file: Path, output: str) -> None:
    from disagctl.cli.output import data, document, say
    from disagctl.clock import wall_s
    from disagctl.views import SCHEMA_VERSION

    now = wall_s()
    if output == "json":
        nodes = [{"offer": one.offer, "usd": one.usd(now)} for one in lease.rentals]
        document({"schema_version": SCHEMA_VERSION, "file": str(file), "rows": counts, "nodes": nodes})
        return
    data(str(file))
    say(f"{sum(counts.values())} rows are in {file}; ${sum(one.usd(now) for one in lease.rentals):.2f} spent")
