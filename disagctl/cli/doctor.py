"""disagctl doctor: what works here."""

import typer

from disagctl.cli.options import Output
from disagctl.errors import UnhealthyError


def doctor(output: Output = "table") -> None:
    """Check what works on this machine. Packages, GPUs, memory, disk, ports, credentials, services."""
    from rich.text import Text

    from disagctl.cli.checks import run_checks
    from disagctl.cli.output import console, document, is_terminal, show
    from disagctl.ui.tables import table
    from disagctl.views import SCHEMA_VERSION

    if is_terminal(err=True):
        with console(err=True).status("checking"):
            checks = run_checks()
    else:
        checks = run_checks()
    failed = [check for check in checks if check.status == "fail"]
    if output == "json":
        document({"schema_version": SCHEMA_VERSION, "ok": not failed, "checks": checks})
    else:
        marks = {
            "ok": Text("ok", style="green"),
            "warn": Text("warn", style="yellow"),
            "fail": Text("FAIL", style="bold red"),
        }
        rows = table("", "CHECK", "FOUND", "WHAT TO DO")
        for check in checks:
            rows.add_row(marks[check.status], check.name, check.found, check.next)
        show(rows)
    if failed:
        typer.echo(f"{len(failed)} of {len(checks)} checks failed", err=True)
        raise typer.Exit(UnhealthyError.exit_code)
