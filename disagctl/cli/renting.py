"""What ``up`` does before it spends money: plan, show, ask."""

from collections.abc import Iterator
from contextlib import contextmanager
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
    with _room_for_head(wish):
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
    head = _show_head(wish, made)
    total += head
    if wish.secrets:
        say(f"every node gets: {', '.join(wish.secrets)}")
    more = " and a machine for its head" if head else ""
    confirm(f"Rent {count} node(s){more} for {wish.name} at ${total:.2f}/h?", yes=yes, verb="up")


def _show_head(wish: "Spec", made: "Deployment") -> float:
    """What a machine for the head costs an hour, and which credentials machines get: both are to be known before the yes."""
    from disagctl.cli.output import say
    from disagctl.headnode.choose import clouds_of, head_offers, wants_machine
    from disagctl.provision.sky.access import copied
    from disagctl.state import paths, read_record

    if not wants_machine(wish):
        return 0.0
    where, room = paths(wish.name), wish.budget.max_usd_per_hour
    record = read_record(where) if where.record.exists() else None
    if record is not None and record.head is not None:
        name, price = record.head.offer, record.head.usd_per_hour
    else:
        first = head_offers(made, room - made.dearest_usd_per_hour if room is not None else None)[0]
        name, price = str(first), first.usd_per_hour
    say(f"nodes there do not reach this machine, so the head gets one of its own: {name}, ${price:.2f}/h")
    files = copied(clouds_of(wish.infra))
    say(f"credentials copied to every machine: {', '.join(files) or 'none; it rents by its own identity in the cloud'}")
    return price


@contextmanager
def _room_for_head(wish: "Spec") -> "Iterator[None]":
    """Plan with what the head's own machine leaves of the budget. Raises OverBudgetError when that is nothing."""
    from disagctl.errors import OverBudgetError
    from disagctl.headnode.choose import wants_machine
    from disagctl.provision.sky.small import small_offers

    whole = wish.budget.max_usd_per_hour
    if whole is None or not wants_machine(wish):
        yield
        return
    places = [(cloud, region) for cloud, _, region in (place.lower().partition("/") for place in wish.infra)]
    price = min((offer.usd_per_hour for offer in small_offers(places)), default=0.0)
    if price >= whole:
        raise OverBudgetError(f"a machine for the head alone costs ${price:.2f}/h", next="raise the budget")
    wish.budget.max_usd_per_hour = whole - price
    try:
        yield
    finally:
        wish.budget.max_usd_per_hour = whole


def _running(name: str) -> "tuple[Running, ...]":
    """The machines that the service has: a new plan keeps them where that is cheapest."""
    from collections import Counter

    from disagctl import lifecycle
    from disagctl.rented import load_deployment
    from disagctl.state import paths
    from planner.plan import Running

    where = paths(name)
    if not where.record.exists():
        return ()
    made = load_deployment(where)
    offers = {str(offer): offer for wish in (made.wishes if made is not None else ()) for offer in wish.offers}
    counts = Counter(lifecycle.machines(where))
    return tuple(Running(offers[name], count) for name, count in counts.items() if name in offers)
