"""disagctl up: make the service be as the spec says."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from disagctl.cli.options import Output, SpecFile, Yes
from disagctl.errors import UsageError

if TYPE_CHECKING:
    from disagctl.spec import Spec


def up(
    spec: SpecFile,
    yes: Yes = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would change, and change nothing.")] = False,
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="Return when it is ready, or when its head runs.")
    ] = True,
    timeout: Annotated[str, typer.Option("--timeout", metavar="DURATION", help="Longest wait.")] = "30m",
    infra: Annotated[str | None, typer.Option("--infra", metavar="INFRA[,…]", help="Instead of the spec's.")] = None,
    budget: Annotated[
        float | None, typer.Option("--budget", metavar="USD_PER_H", help="Instead of the spec's.")
    ] = None,
    output: Output = "table",
) -> None:
    """Start a service, or apply a changed spec. Returns when it is ready."""
    from disagctl import lifecycle
    from disagctl.cli.output import document
    from disagctl.cli.starting import report, watch_start
    from disagctl.spec import units

    try:
        wait_s = units.duration(timeout)
    except ValueError as err:
        raise UsageError(f"--timeout cannot be {timeout!r}", why=str(err)) from err
    wish = _load(spec, infra, budget)
    if dry_run:
        _preview(lifecycle.diff(wish), wish.name, output)
        return
    show_changes(wish)
    with watch_start(wish.name) as on_progress:
        record = lifecycle.up(wish, wait_s=wait_s if wait else None, on_progress=on_progress)
    if output == "json":
        document(_status(record.name))
    else:
        report(record, ready=wait)


def show_changes(wish: "Spec") -> None:
    """On a service that exists: what will be different, before it is."""
    from disagctl import lifecycle
    from disagctl.cli.output import say
    from disagctl.state import paths

    if paths(wish.name).record.exists():
        for line in lifecycle.diff(wish):
            say(line)


def _load(path: Path, infra: str | None, budget: float | None) -> "Spec":
    """The spec, with what the command line says instead."""
    from disagctl.spec import load_spec
    from disagctl.spec.infra import complaint

    spec = load_spec(path)
    if infra is not None:
        spec.infra = [place.strip() for place in infra.split(",") if place.strip()]
        wrong = complaint(spec.infra, spec.catalog)
        if wrong is not None:
            raise UsageError(f"--infra: {wrong[1]}", why=wrong[2])
    if budget is not None:
        if not 0 < budget < 1e9:
            raise UsageError("--budget is an amount of dollars an hour, more than nothing")
        spec.budget.max_usd_per_hour = budget
    return spec


def _preview(lines: list[str], name: str, output: str) -> None:
    from disagctl.cli.output import data, document, say
    from disagctl.views import SCHEMA_VERSION

    if output == "json":
        document({"schema_version": SCHEMA_VERSION, "name": name, "changes": lines})
        return
    for line in lines:
        data(line)
    say("a dry run: nothing was changed" if lines else "nothing would change")


def _status(name: str) -> object:
    from disagctl.cli.client import Head

    with Head(name) as head:
        return head.status()
