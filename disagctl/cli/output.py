"""Where words go: data to stdout, chatter to stderr, colours and live displays to terminals only."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import msgspec
import typer

from disagctl.errors import UsageError
from disagctl.settings import asked_columns

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

PIPE_WIDTH = 120  # columns of a table that nobody watches, unless COLUMNS says otherwise


def console(*, err: bool = False) -> "Console":
    """A rich console that takes text as it is. It obeys NO_COLOR by itself."""
    from rich.console import Console

    stream = sys.stderr if err else sys.stdout
    asked = stream.isatty() or asked_columns()
    return Console(file=stream, highlight=False, markup=False, emoji=False, width=None if asked else PIPE_WIDTH)


def show(renderable: "RenderableType") -> None:
    """Print to stdout."""
    console().print(renderable)


def data(text: str) -> None:
    """A line of data to stdout."""
    typer.echo(text)


def say(text: str) -> None:
    """A line of chatter to stderr."""
    typer.echo(text, err=True)


def document(value: Any) -> None:
    """One JSON document to stdout, indented: people read it too."""
    typer.echo(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def json_line(value: Any) -> None:
    """One line of NDJSON to stdout, at once."""
    typer.echo(msgspec.json.encode(value).decode())
    sys.stdout.flush()


def is_terminal(*, err: bool = False) -> bool:
    """Whether somebody watches the stream."""
    return (sys.stderr if err else sys.stdout).isatty()


def confirm(question: str, *, yes: bool, verb: str) -> None:
    """Go on only with a yes. Without a terminal to ask on, refuse: never half-do, never guess."""
    if yes:
        return
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise UsageError(f"{verb} needs a confirmation", why="there is no terminal to ask on", next="add -y to confirm")
    if not typer.confirm(question, default=False, err=True):
        raise UsageError("not confirmed", why="nothing was changed", code="not_confirmed")


@contextmanager
def live(first: "RenderableType", *, screen: bool = False, err: bool = True) -> "Iterator[Any]":
    """A display that is redrawn in place, and taken away at the end (also after Ctrl-C)."""
    from rich.live import Live

    with Live(
        first, console=console(err=err), screen=screen, transient=True, auto_refresh=True, refresh_per_second=8
    ) as it:
        yield it
