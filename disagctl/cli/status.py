"""disagctl status: what a service does now, or all of them."""

from typing import TYPE_CHECKING, Annotated

import typer

from disagctl.cli.options import OptionalName, Output, Watch

if TYPE_CHECKING:
    from disagctl.views import StatusView


def status(
    name: OptionalName = None,
    watch: Watch = False,
    output: Output = "table",
    interval: Annotated[
        float, typer.Option("--interval", min=0.1, max=3600, help="Seconds between updates, with -w.")
    ] = 1.0,
) -> None:
    """Show a service (or all), live with -w. Works without a head."""
    from disagctl import clock
    from disagctl.cli.output import document, show
    from disagctl.ui.status import service_status
    from disagctl.ui.tables import services
    from disagctl.views import SCHEMA_VERSION

    if watch:
        from disagctl.cli.watch import watch_all, watch_service

        watch_service(name, interval, output) if name else watch_all(interval, output)
    elif name is not None:
        view = look(name)
        document(view) if output == "json" else show(service_status(view, now=clock.wall_s()))
    elif output == "json":
        document({"schema_version": SCHEMA_VERSION, "services": look_at_all()})
    else:
        views = look_at_all()
        show(services(views) if views else "no services here — disagctl up SPEC starts one")


def look(name: str) -> "StatusView":
    """From the head, or from what it left on the disk."""
    from disagctl import lifecycle
    from disagctl.admin_client import head_status
    from disagctl.state import paths, read_record

    where = paths(name)
    read_record(where)
    return head_status(where) or lifecycle.offline_status(name)


def look_at_all() -> "list[StatusView]":
    """Every service of this state directory; one that is damaged is named on stderr and left out."""
    from disagctl.cli.output import say
    from disagctl.errors import UsageError
    from disagctl.state import services

    views = []
    for where in services():
        try:
            views.append(look(where.name))
        except UsageError as err:  # also one that went away meanwhile
            say(str(err))
    return views
