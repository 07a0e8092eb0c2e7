"""disagctl up: make the service be as the spec says."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from disagctl.cli.options import Output, SpecFile, Yes
from disagctl.errors import CredentialsError, InfeasibleError, OverBudgetError, UsageError

if TYPE_CHECKING:
    from disagctl.spec import Spec
    from disagctl.state import ServiceRecord
    from planner.run.rent import Deployment


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
    """Start a service, or apply a changed spec. Shows what it will cost, and asks. Returns when it is ready."""
    from disagctl import lifecycle
    from disagctl.cli.output import document
    from disagctl.cli.renting import confirm_rent, rent
    from disagctl.cli.wish import load
    from disagctl.planning.plan_file import keep
    from disagctl.planning.saved import follow
    from disagctl.rented import LOCAL
    from disagctl.spec import units
    from disagctl.state import paths

    try:
        wait_s = units.duration(timeout)
    except ValueError as err:
        raise UsageError(f"--timeout cannot be {timeout!r}", why=str(err)) from err
    wish = load(spec, infra, budget)
    deployment: Deployment | None = None
    planned: dict[str, Any] = {}
    if wish.infra != LOCAL:
        lifecycle.check(wish)
        deployment, planned = rent(wish, spec, plan)
    elif plan is not None:
        follow(plan, wish)
    if dry_run:
        _preview(lifecycle.diff(wish, deployment), wish.name, output)
        return
    show_changes(wish, deployment)
    if deployment is not None:
        confirm_rent(wish, deployment, yes=yes)
    record = _start(wish, deployment, wait_s if wait else None)
    if deployment is not None:
        keep(planned, paths(wish.name).root)
    if output == "json":
        document(_status(record.name))
    else:
        from disagctl.cli.starting import report

        report(record, ready=wait)


def _start(wish: "Spec", deployment: "Deployment | None", wait_s: float | None) -> "ServiceRecord":
    """A service that cannot get its machines is taken down again if it is new: what it did get would bill for nothing."""
    from disagctl import lifecycle
    from disagctl.cli.output import say
    from disagctl.cli.starting import watch_start
    from disagctl.rented import LOCAL
    from disagctl.state import paths

    new = not paths(wish.name).record.exists()
    try:
        with watch_start(wish.name) as on_progress:
            return lifecycle.up(wish, wait_s=wait_s, on_progress=on_progress, deployment=deployment)
    except (InfeasibleError, CredentialsError, OverBudgetError):
        if new and paths(wish.name).record.exists():
            say(f"{wish.name} cannot have its machines: giving back what it got")
            lifecycle.down(wish.name, discard=True, on_progress=say)
        raise
    except KeyboardInterrupt:
        if wish.infra != LOCAL and paths(wish.name).record.exists():
            say(f"{wish.name} may go on starting, and bill: disagctl down {wish.name} -y ends it")
        raise


def show_changes(wish: "Spec", deployment: "Deployment | None" = None) -> None:
    """On a service that exists: what will be different, before it is."""
    from disagctl import lifecycle
    from disagctl.cli.output import say
    from disagctl.state import paths

    if paths(wish.name).record.exists():
        for line in lifecycle.diff(wish, deployment):
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
