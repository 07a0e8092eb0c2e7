"""disagctl logs: what the head, the agents and the workers wrote."""

from typing import Annotated

import typer

from disagctl.cli.options import Name

POLL_S = 0.3


def logs(
    name: Name,
    stage: Annotated[str | None, typer.Option("--stage", metavar="STAGE", help="Only this stage's workers.")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Keep showing what is written.")] = False,
    tail: Annotated[int, typer.Option("--tail", metavar="N", min=0, help="Lines to begin with, of each source.")] = 100,
) -> None:
    """Show a service's logs. Works without a head."""
    import time

    from rich.text import Text

    from disagctl.cli.logfiles import Reader, style_of
    from disagctl.cli.output import console
    from disagctl.state import paths, read_record

    where = paths(name)
    read_record(where)
    screen = console()
    reader = Reader(where.logs, stage, tail)
    while True:
        for source, line in reader.lines(last=not follow):
            text = (
                Text(f"{source:<{reader.width}} ", style=style_of(source))
                .append("│ ", style="dim")
                .append(line, style="default")
            )
            screen.print(text, soft_wrap=True)
        if not follow:
            return
        time.sleep(POLL_S)
