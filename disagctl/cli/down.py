"""disagctl down: end a service."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from disagctl.cli.options import Name, Output, Yes


def down(
    name: Name,
    yes: Yes = False,
    discard: Annotated[bool, typer.Option("--discard", help="Do not save results that nobody fetched.")] = False,
    output: Output = "table",
) -> None:
    """End a service and all that it runs. Results that nobody fetched are saved first."""
    from disagctl import lifecycle
    from disagctl.cli.output import confirm, data, document, say
    from disagctl.state import paths, read_record
    from disagctl.views import SCHEMA_VERSION

    read_record(paths(name))
    confirm(_question(name, discard) if not yes else "", yes=yes, verb="down")
    try:
        with _display(name) as on_progress:
            saved = lifecycle.down(name, discard=discard, on_progress=on_progress)
    except KeyboardInterrupt:
        say(f"{name} may be half down: run disagctl down {name} -y again to finish")
        raise
    if output == "json":
        document({"schema_version": SCHEMA_VERSION, "name": name, "files": [str(path) for path in saved]})
        return
    for path in saved:
        data(str(path))
    say(f"{name} is down" + (f"; {len(saved)} result(s) saved" if saved else ""))


def _question(name: str, discard: bool) -> str:
    """What would end, in one question."""
    from disagctl import lifecycle
    from disagctl.admin_client import head_status
    from disagctl.state import paths

    view = head_status(paths(name)) or lifecycle.offline_status(name)
    counts = view.requests
    ends = f"{len(view.workers)} worker(s), {counts.queued + counts.running} unfinished request(s)"
    lost = "; unfetched results are DISCARDED" if discard else ""
    return f"End {name}: {ends}{lost}. Go on?"


@contextmanager
def _display(name: str) -> Iterator[Callable[[str], None]]:
    from disagctl.cli.output import console, is_terminal, say

    if not is_terminal(err=True):
        yield say
        return
    screen = console(err=True)
    with screen.status(f"ending {name}") as status:

        def step(text: str) -> None:
            screen.print(text, style="dim")
            status.update(f"{name}: {text}")

        yield step
