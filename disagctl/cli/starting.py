"""What ``up`` shows while workers start, load and get ready."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from disagctl.cli.output import data, is_terminal, live, say
from disagctl.state import ServiceRecord, paths
from disagctl.ui.plain import changes, readiness
from disagctl.views import StatusView

OnProgress = Callable[[StatusView], None]
QUIET_S: Final = 15.0  # without a terminal, and with nothing new, say every so often that it goes on


@contextmanager
def watch_start(name: str) -> Iterator[OnProgress]:
    """A callback for ``lifecycle.up``; while it is in use the user sees what happens, on stderr."""
    if is_terminal(err=True):
        with _table(name) as on_progress:
            yield on_progress
    else:
        yield _Lines(name).show


def report(record: ServiceRecord, *, ready: bool) -> None:
    """The endpoint on stdout, and what to do next."""
    data(record.url)
    if record.away and record.head is not None and record.http_host in {"127.0.0.1", "localhost", "::1"}:
        head, port, key = record.head, record.http_port, paths(record.name).head_key
        to = f"-L {port}:{record.http_host}:{port} -p {head.port} {head.user}@{head.host}"
        say(f"that is on the head's own machine; `ssh -N -i {key} {to}` brings it here")
    if ready:
        say(f'{record.name} is ready — next: disagctl generate {record.name} "a red circle"')
    else:
        say(f"{record.name} is starting — next: disagctl status {record.name} -w")


@contextmanager
def _table(name: str) -> Iterator[OnProgress]:
    from rich.console import Group
    from rich.spinner import Spinner

    from disagctl.ui.status import in_order, node_table, worker_table

    spinner = Spinner("dots", f"starting the head of {name}")
    with live(spinner) as display:

        def show(view: StatusView) -> None:
            spinner.update(text=f"{view.name}: {view.state} — {readiness(view)}")
            several = len({stage.model for stage in view.stages}) > 1
            parts = [worker_table(in_order(view), several=several)] if view.workers else []
            rented = [node for node in view.nodes if node.provider != "local"]
            parts += [node_table(rented)] if rented else []
            display.update(Group(spinner, *parts))

        yield show


class _Lines:
    def __init__(self, name: str) -> None:
        self._last: StatusView | None = None
        self._said_s = time.monotonic()
        say(f"starting the head of {name}")

    def show(self, view: StatusView) -> None:
        lines = changes(self._last, view, events=False)
        if not lines and time.monotonic() - self._said_s > QUIET_S:
            lines = [f"{view.name}: still {view.state} — {readiness(view)}"]
        if lines:
            self._said_s = time.monotonic()
        for line in lines:
            say(line)
        self._last = view
