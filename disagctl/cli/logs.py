"""disagctl logs: what the head, the agents and the workers wrote."""

from typing import TYPE_CHECKING, Annotated

import typer

from disagctl.cli.options import Name

if TYPE_CHECKING:
    from disagctl.state import ServicePaths, ServiceRecord

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
    record = read_record(where)
    if record.away:
        _there(where, record, stage, tail, follow=follow)
        return
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


def _there(where: "ServicePaths", record: "ServiceRecord", stage: str | None, tail: int, *, follow: bool) -> None:
    """On the machine that the head has to itself: the same command, there."""
    import subprocess

    from disagctl.errors import UnhealthyError
    from disagctl.headnode.ssh import SSH_FAILED, command, head_of

    words = ["disagctl.cli.main", "logs", record.name, "--tail", str(tail)]
    words += ["--stage", stage] if stage is not None else []
    words += ["-f"] if follow else []
    code = subprocess.run(command(where, head_of(record), *words), stdin=subprocess.DEVNULL, check=False).returncode
    if code == SSH_FAILED:
        raise UnhealthyError(f"the machine of {record.name}'s head does not answer", code="head_silent")
    if code:
        raise typer.Exit(code)
