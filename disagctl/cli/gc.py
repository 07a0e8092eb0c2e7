"""disagctl gc: find and end machines that nobody looks after."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from disagctl.cli.options import Output, Yes

if TYPE_CHECKING:
    from disagctl.orphans import Orphan


def gc(
    yes: Yes = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list them.")] = False,
    output: Output = "table",
) -> None:
    """Find machines rented from here that no service knows, and end them. Only ever those."""
    from disagctl import orphans
    from disagctl.cli.output import confirm, data, document, say
    from disagctl.views import SCHEMA_VERSION

    found = orphans.find()
    if output == "json":
        if found and not dry_run:
            confirm("", yes=yes, verb="gc")
            orphans.kill(found, say)
        document(
            {
                "schema_version": SCHEMA_VERSION,
                "orphans": [_row(o) for o in found],
                "ended": bool(found) and not dry_run,
            }
        )
        return
    for orphan in found:
        price = "price unknown" if orphan.usd_per_hour is None else f"${orphan.usd_per_hour:.2f}/h"
        data(f"{orphan.name}  {orphan.offer or '?'}  {price}  of {orphan.service}")
    if not found:
        say("no orphans")
    elif not dry_run:
        confirm(f"End {len(found)} machine(s) that no service knows?", yes=yes, verb="gc")
        orphans.kill(found, say)
        say(f"{len(found)} machine(s) ended")


def _row(orphan: "Orphan") -> dict[str, Any]:
    return {
        "service": orphan.service,
        "uid": orphan.uid,
        "node": orphan.node,
        "provider_id": orphan.provider_id,
        "offer": orphan.offer,
        "usd_per_hour": orphan.usd_per_hour,
    }
