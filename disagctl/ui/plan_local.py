"""The plan for this machine alone. Pure."""

from collections.abc import Mapping
from typing import Any

from rich.console import Group
from rich.text import Text

from disagctl.ui.tables import clean, table


def local_picture(plan: Mapping[str, Any]) -> Group:
    """Stages and workers; no money."""
    several = len({row["model"] for row in plan["rows"]}) > 1
    made = table("STAGE", "WORKERS", "ON", "$/H", right=("WORKERS", "$/H"))
    for row in plan["rows"]:
        name = f"{row['model']}.{row['stage']}" if several else row["stage"]
        made.add_row(clean(name), str(row["replicas"]), f"{row['offer']['accelerator']}, this machine", "0.00")
    head = Text(plan["name"], style="bold").append("  on this machine, $0.00/h", style="not bold")
    notes = [Text("! ", style="bold yellow").append(clean(text), style="not bold default") for text in plan["warnings"]]
    return Group(head, Text(), made, Text(), *notes)
