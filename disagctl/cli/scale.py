"""disagctl scale: pin worker counts."""

from typing import Annotated

import typer

from disagctl.cli.options import Name
from disagctl.errors import UsageError

MAX_WORKERS = 4096
COUNTS_HELP = "Stages and their numbers of workers, such as denoise=3 (or model.denoise=3)."


def scale(
    name: Name,
    counts: Annotated[list[str] | None, typer.Argument(metavar="[STAGE=N]...", help=COUNTS_HELP)] = None,
    auto: Annotated[bool, typer.Option("--auto", help="Hand all stages back to the policy.")] = False,
) -> None:
    """Pin stages to a number of workers. It holds until --auto; returns once the wish is stored."""
    from disagctl.cli.client import Head
    from disagctl.cli.output import say

    wanted = _parse(counts or [])
    if bool(wanted) == auto:
        raise UsageError(
            "say STAGE=N, or --auto", why="one of the two, not both", next=f"disagctl scale {name} denoise=2"
        )
    with Head(name) as head:
        head.scale(wanted, auto=auto)
    what = "back with the policy" if auto else ", ".join(f"{stage}={count}" for stage, count in wanted.items())
    say(f"{name}: {what} — disagctl status {name} -w shows it happen")


def _parse(counts: list[str]) -> dict[str, int]:
    wanted: dict[str, int] = {}
    for word in counts:
        stage, equals, number = word.partition("=")
        if not equals or not stage or not number.isascii() or not number.isdigit() or len(number) > 6:
            raise UsageError(f"{word!r} is not STAGE=N", next="write it as denoise=2")
        if int(number) > MAX_WORKERS:
            raise UsageError(f"{word!r} asks for too many workers", why=f"at most {MAX_WORKERS}")
        if stage in wanted:
            raise UsageError(f"{stage!r} is named twice")
        wanted[stage] = int(number)
    return wanted
