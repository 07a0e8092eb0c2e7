"""disagctl up: make the service be as the spec says."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from disagctl.cli.options import Output, SpecFile, Yes
from disagctl.errors import UsageError

if TYPE_CHECKING:
    from disagctl.spec import Spec


def up(  # noqa: PLR0913, PLR0917  # one parameter an option
    spec: SpecFile,
    yes: Yes = False,
    plan: Annotated[
        Path | None, typer.Option("--plan", metavar="FILE", help="Start what this plan says (disagctl plan -o json).")
    ] = None,
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
    from disagctl.cli.wish import load
    from disagctl.planning.saved import follow
    from disagctl.spec import units

    try:
        wait_s = units.duration(timeout)
    except ValueError as err:
        raise UsageError(f"--timeout cannot be {timeout!r}", why=str(err)) from err
    wish = load(spec, infra, budget)
    if plan is not None:
        follow(plan, wish)
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
