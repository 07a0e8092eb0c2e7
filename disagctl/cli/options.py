"""Options that several verbs share, spelled once."""

from pathlib import Path
from typing import Annotated, Literal

import typer

Format = Literal["table", "json"]


def _service_names(incomplete: str) -> list[str]:
    """For shell completion."""
    from disagctl.state import services

    return [where.name for where in services() if where.name.startswith(incomplete)]


Name = Annotated[str, typer.Argument(metavar="NAME", help="The service.", autocompletion=_service_names)]
OptionalName = Annotated[
    str | None,
    typer.Argument(metavar="[NAME]", help="The service; all of them if left out.", autocompletion=_service_names),
]
RequestId = Annotated[str, typer.Argument(metavar="ID", help="A request, as `generate` printed it.")]
SpecFile = Annotated[Path, typer.Argument(metavar="SPEC", help="service.yaml")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
Output = Annotated[Format, typer.Option("--output", "-o", help="How to print the result.")]
Watch = Annotated[bool, typer.Option("--watch", "-w", help="Keep showing it until interrupted.")]
File = Annotated[
    Path | None, typer.Option("--file", "-f", metavar="FILE", help="Where to put the result; - is standard output.")
]
