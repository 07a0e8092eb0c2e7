"""status -w: redrawn on a terminal, a line a change in a pipe, NDJSON for programs. Outlives the head."""

import time
from collections import deque
from collections.abc import Iterator
from typing import Final

from disagctl import clock
from disagctl.cli.client import Head
from disagctl.cli.output import data, is_terminal, json_line, live
from disagctl.cli.status import look, look_at_all
from disagctl.errors import UnhealthyError, UsageError
from disagctl.ui.plain import changes, load_line
from disagctl.ui.status import service_status
from disagctl.ui.tables import services
from disagctl.views import SCHEMA_VERSION, StatusView

HISTORY: Final = 60
LINE_EVERY_S: Final = 5.0


def watch_service(name: str, interval_s: float, output: str) -> None:
    """Until Ctrl-C, or until the service is gone."""
    views = _views(name, interval_s)
    if output == "json":
        for view in views:
            json_line(view)
    elif is_terminal():
        _draw(views)
    else:
        _lines(views)


def watch_all(interval_s: float, output: str) -> None:
    """All services, until Ctrl-C."""
    if output == "json":
        while True:
            json_line({"schema_version": SCHEMA_VERSION, "services": look_at_all()})
            time.sleep(interval_s)
    if not is_terminal():
        raise UsageError("status -w wants a NAME here", why="there is no terminal to redraw", next="or use -o json")
    with live(services(look_at_all()), screen=True, err=False) as display:
        while True:
            display.update(services(look_at_all()), refresh=True)
            time.sleep(interval_s)


def _views(name: str, interval_s: float) -> Iterator[StatusView]:
    """The head's stream; while there is no head, what can be said without one. Ends when the service is removed."""
    yield look(name)
    while True:
        try:
            with Head(name) as head:
                yield from head.watch(interval_s)
        except UnhealthyError:
            pass
        except UsageError:
            return  # taken down
        time.sleep(interval_s)
        try:
            yield look(name)
        except UsageError:
            return


def _draw(views: Iterator[StatusView]) -> None:
    history: deque[float] = deque(maxlen=HISTORY)
    with live("", screen=True, err=False) as display:
        for view in views:
            history.append(view.requests_per_min or 0.0)
            height = display.console.height
            display.update(service_status(view, now=clock.wall_s(), history=history, height=height), refresh=True)


def _lines(views: Iterator[StatusView]) -> None:
    last: StatusView | None = None
    said_s = 0.0
    for view in views:
        lines = changes(last, view)
        if time.monotonic() - said_s >= LINE_EVERY_S:
            said_s = time.monotonic()
            lines.append(load_line(view))
        for line in lines:
            data(line)
        last = view
