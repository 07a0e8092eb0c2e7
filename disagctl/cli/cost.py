"""disagctl cost: what a service has cost so far."""

from disagctl.cli.options import Name, Output


def cost(name: Name, output: Output = "table") -> None:
    """Show the money spent, by stage and by machine, and for 1000 requests. Works without a head on this machine."""
    from disagctl.cli.client import Head
    from disagctl.cli.output import document, show
    from disagctl.spending import cost_of
    from disagctl.state import paths, read_record
    from disagctl.ui.cost import cost_picture

    where = paths(name)
    if read_record(where).away:  # the rows are there
        with Head(name) as head:
            view = head.cost()
    else:
        view = cost_of(where)
    document(view) if output == "json" else show(cost_picture(view))
