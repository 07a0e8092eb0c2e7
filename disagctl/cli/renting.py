"""What ``up`` does before it spends money: plan, show, ask."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from disagctl.spec import Spec
    from planner.plan import Running
    from planner.run.rent import Deployment


def rent(wish: "Spec", path: Path, plan: Path | None) -> "tuple[Deployment | None, dict[str, Any]]":
    """Plan the machines and show the plan on stderr. Also the plan's document, to be kept with the service.

    None: the service exists as the spec has it, nothing changes.
    """
    from disagctl import lifecycle
    from disagctl.cli.output import console
    from disagctl.cli.plan import spinner
    from disagctl.planning.deploy import deploy
    from disagctl.planning.document import document
    from disagctl.ui.plan import plan_picture

    if plan is None and lifecycle.is_unchanged(wish):
        return None, {}
    view, made = deploy(wish, path, plan, _running(wish.name), spinner)
    console(err=True).print(plan_picture(view))
    return made, document(view)


def confirm_rent(wish: "Spec", made: "Deployment", *, yes: bool) -> None:
    """The last word before money is spent. Raises UsageError when it is not given, or nobody is there to give it."""
    from disagctl.cli.output import confirm, say

    count = sum(one.count for one in made.wishes)
    spare = sum(len(one.offers) - 1 for one in made.wishes)
    total, most = made.plan.usd_per_hour, made.dearest_usd_per_hour
    budget = wish.budget.max_usd_per_hour
    wall = f"never more than ${budget:.2f}/h" if budget is not None else "no budget.max_usd_per_hour is set"
    say(f"{count} node(s), ${total:.2f}/h; with {spare} stand-in offer(s) at most ${most:.2f}/h; {wall}")
    if wish.secrets:
        say(f"every node gets: {', '.join(wish.secrets)}")
    confirm(f"Rent {count} node(s) for {wish.name} at ${total:.2f}/h?", yes=yes, verb="up")


def _running(name: str) -> "tuple[Running, ...]":
    """The machines that the service has: a new plan keeps them where that is cheapest."""
    from collections import Counter

    from disagctl.rented import load_deployment
    from disagctl.state import paths
    from disagctl.store.offline import open_nodes
    from planner.plan import Running

    where = paths(name)
    if not where.record.exists():
        return ()
    made = load_deployment(where)
    offers = {str(offer): offer for wish in (made.wishes if made is not None else ()) for offer in wish.offers}
    counts = Counter(row.offer for row in open_nodes(where.store))
    return tuple(Running(offers[name], count) for name, count in counts.items() if name in offers)
