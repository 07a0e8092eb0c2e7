"""A CostView as tables. Pure."""

from rich.console import Group
from rich.text import Text

from disagctl.ui.tables import NOTHING, clean, seconds, state, table
from disagctl.views import CostView


def cost_picture(view: CostView) -> Group:
    """The total, then by stage and by machine."""
    head = Text(view.name, style="bold").append(f"  ${view.usd_total:.2f} spent", style="bold")
    head.append(f"  ${view.usd_per_hour:.2f}/h now  {view.requests} requests", style="not bold")
    head.append(f"  {_money(view.usd_per_1000)} per 1000", style="not bold")
    stages = table("STAGE", "SPENT", "PER 1000", right=("SPENT", "PER 1000"))
    for stage in view.stages:
        stages.add_row(clean(stage.stage), _money(stage.usd), _money(stage.usd_per_1000))
    machines = table("NODE", "OFFER", "STATE", "PAID FOR", "$/H", "SPENT", right=("PAID FOR", "$/H", "SPENT"))
    for node in view.nodes:
        machines.add_row(
            node.id,
            clean(node.offer),
            state(node.state),
            seconds(node.seconds),
            f"{node.usd_per_hour:.2f}",
            _money(node.usd),
        )
    return Group(head, Text(), stages, Text(), machines)


def _money(usd: float | None) -> str:
    if usd is None:
        return NOTHING
    return f"${usd:.2f}" if usd >= 0.1 or usd == 0 else f"${usd:.4f}"
