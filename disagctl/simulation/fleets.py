"""On which machines to simulate: so many workers, or the plan's, or all that the catalog has when no plan carries the load."""

from collections.abc import Callable, Iterable, Sequence

from msgspec.structs import replace

from disagctl.errors import InfeasibleError
from disagctl.spec.infra import LOCAL
from planner.domain import Offer, Role
from planner.plan import Infeasible, Plan, PlanRequest
from planner.plan.market import in_infra
from planner.run.fleet import NodeWish
from planner.run.rent import key_of
from planner.run.seating import Fits
from planner.sim.scenario import Seconds, Trace

Solve = Callable[[PlanRequest], Plan | Infeasible]


def local_fleet(workers: int | None, bounds: Iterable[tuple[int, int | None]]) -> tuple[NodeWish, ...]:
    """This machine: so many workers, or the most that the spec's replicas allow."""
    count = workers or sum(most or least for least, most in bounds)
    here = Offer(LOCAL, "", "this machine", LOCAL, count, spot=False, usd_per_hour=0.0)
    return (NodeWish(LOCAL, (here,), 1),)


def rented_fleet(
    request: PlanRequest,
    workers: int | None,
    trace: Trace,
    seconds: Seconds,
    roles: Sequence[Role],
    fits: Fits,
    solve: Solve,
) -> tuple[tuple[NodeWish, ...], Plan | None, str]:
    """Nodes, the plan that they are from, and a warning ("" when there is nothing to say). Raises InfeasibleError, as ``solve``
    may."""
    within = [offer for offer in request.offers if in_infra(offer, request.infra)]
    fitting = [offer for offer in within if all((role,) in fits.get(offer.accelerator, ()) for role in roles)]
    able = [offer for offer in fitting if _able(offer, trace, seconds, roles)]
    if workers is not None:
        return _so_many(able, workers, trace, seconds, roles), None, ""
    found = solve(request)
    if isinstance(found, Plan):
        nodes = tuple(NodeWish(key_of(n.offer), (replace(n.offer, where=""),), n.nodes) for n in found.nodes)
        return nodes, found, ""
    bounded = [offer for offer in able if offer.max_nodes]
    if found.kind == "no_profile" or not bounded:
        raise InfeasibleError(
            f"there is no plan for this trace ({found.constraint})", why=found.why,
            next=found.relaxation or "--workers N simulates a fleet of that size",
        )  # fmt: skip
    offer = min(bounded, key=lambda one: _per_request(one, trace, seconds, roles))
    count = offer.max_nodes or 1
    if request.max_usd_per_hour is not None:
        count = max(1, min(count, int(request.max_usd_per_hour / max(offer.usd_per_hour, 1e-9))))
    said = f"no plan carries this trace ({found.why}): simulated on all {count} × {offer} that there are"
    return (NodeWish(key_of(offer), (replace(offer, where=""),), count),), None, said


def _so_many(
    offers: Sequence[Offer], workers: int, trace: Trace, seconds: Seconds, roles: Sequence[Role]
) -> tuple[NodeWish, ...]:
    if not offers:
        raise InfeasibleError(
            "no offer of the catalog can run every stage", why="there are no timings for it, or it does not fit, or may not",
            next="profile first, or name profiles with --profiles; without --workers stages may have GPUs of their own",
            code="profile_first",
        )  # fmt: skip
    best = min(offers, key=lambda one: _per_request(one, trace, seconds, roles))
    same = [offer for offer in offers if offer.accelerator == best.accelerator and workers % offer.count == 0]
    fitting = [o for o in same if o.max_nodes is None or workers // o.count <= o.max_nodes]
    if fitting:
        offer = min(fitting, key=lambda one: (one.usd_per_hour / one.count, -one.count))
        return (NodeWish(key_of(offer), (replace(offer, where=""),), workers // offer.count),)
    alone = replace(best, count=1, usd_per_hour=best.usd_per_hour / best.count, where="")
    return (NodeWish(key_of(alone), (alone,), workers),)


def _able(offer: Offer, trace: Trace, seconds: Seconds, roles: Sequence[Role]) -> bool:
    kinds = {(row.model, row.shape) for row in trace.rows}
    try:
        return all(
            seconds(role, offer.accelerator, shape) > 0
            for role in roles
            for model, shape in kinds
            if model == role.model
        )
    except LookupError:
        return False


def _per_request(offer: Offer, trace: Trace, seconds: Seconds, roles: Sequence[Role]) -> float:
    """Dollars for the trace's requests on this offer alone."""
    kinds: dict[tuple[str, object], tuple[int, float]] = {}
    for row in trace.rows:
        key = (row.model, row.shape)
        if key not in kinds:
            mine = (role for role in roles if role.model == row.model)
            kinds[key] = (0, sum(seconds(role, offer.accelerator, row.shape) for role in mine))
        kinds[key] = (kinds[key][0] + 1, kinds[key][1])
    return offer.usd_per_hour / offer.count * sum(count * each for count, each in kinds.values())
