"""disagctl cost: what a service has cost so far."""

from disagctl.cli.options import Name, Output


def cost(name: Name, output: Output = "table") -> None:
    """Show the money spent, by stage and by machine, and for 1000 requests. Works without a head."""
    from disagctl.cli.output import document, show
    from disagctl.spending import cost_of
    from disagctl.state import paths
    from disagctl.ui.cost import cost_picture

    view = cost_of(paths(name))
    document(view) if output == "json" else show(cost_picture(view))
