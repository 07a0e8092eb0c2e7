"""The control loop on rented machines: what the policy is told of them, and whom it asks for others."""

from collections.abc import Callable, Mapping

from disagctl.control_config import LAUNCH_S
from disagctl.keeper import RentedMachines
from disagctl.planning.fits import Known, outside
from disagctl.planning.renter import Renter
from disagctl.spec import Spec
from planner.domain import Role, Shape
from planner.plan import Plan
from planner.run.config import PolicyConfig, Predict, RoleBounds
from planner.run.decisions import Solve
from planner.run.observe import Planned
from planner.run.rent import Deployment
from planner.run.seating import Seating

Pins = Callable[[], Mapping[Role, int]]


def loop_off(made: Deployment, known: Known | None) -> str:
    """Why counts stay the plan's on these machines; "" when they need not."""
    if made.request is None or known is None:
        return "the service was rented by an earlier version: run disagctl up again with a changed spec"
    wide = next((row for row in made.plan.rows if row.gpus_per_replica > 1), None)
    if wide is not None:
        return f"{wide.stage} has {wide.gpus_per_replica} GPUs a worker"
    beyond = outside(known.fits, made.seating)
    return f"{beyond} may use some of the machines of that type only" if beyond else ""


def rented_config(
    spec: Spec,
    bounds: tuple[RoleBounds, ...],
    made: Deployment,
    slo_s: Mapping[str, float],
    seating: Seating | None,
) -> tuple[PolicyConfig, Predict, str]:
    """The policy's configuration, the seconds that are known, and why the loop does nothing ("": it does).

    ``seating``: what each GPU was for when an earlier head ended; None: as the plan has it.
    """
    known = Known(made.request) if made.request is not None else None
    off = loop_off(made, known)
    launches = [offer.launch_s for wish in made.wishes for offer in wish.offers[:1]]
    loads: dict[Role, float] = {}
    for row in made.plan.rows:
        for stage in row.stage.split("+"):
            role = Role(row.model, stage)
            shapes = (
                [one.shape for one in made.request.workload.classes if one.model == role.model] if made.request else []
            )
            each = [known.load_s(role, row.offer.accelerator, shape) for shape in shapes] if known is not None else []
            loads[role] = max(loads.get(role, 0.0), *each, 0.0)
    config = PolicyConfig(
        roles=bounds,
        mode="static" if off else spec.policy.scaling,
        slo_p95_s=dict(slo_s),
        load_s=loads,
        launch_s=max(launches, default=LAUNCH_S),
        interval_s=spec.policy.interval_s,
        elastic=not off,
        placed=spec.policy.dispatching.places,
        max_usd_per_hour=spec.budget.max_usd_per_hour,
        max_usd_total=spec.budget.max_usd_total,
        workload=made.request.workload if made.request is not None else None,
        fits=known.fits if known is not None and not off else None,
        together=known.together if known is not None and not off else {},
        seating=seating or made.seating,
        rented=made.seating if spec.policy.dispatching.places else None,
    )
    return config, known.seconds if known is not None else _nothing, off


def _nothing(role: Role, accelerator: str, shape: Shape) -> float | None:
    del role, accelerator, shape
    return None


class Landlord:
    """Whom the loop asks for other machines. ``planned``: is told of each plan's parts, for what a stage costs."""

    def __init__(self, made: Deployment, machines: RentedMachines, planned: Callable[[Deployment], None]) -> None:
        self._renter = Renter(made.request) if made.request is not None else None
        self._machines, self._planned = machines, planned

    def answer(self, question: Solve) -> Planned:
        """Blocks until the solver has answered."""
        if self._renter is None:
            return Planned(question.id, error="it is not known what the service was planned with")
        found = self._renter.answer(question, self._machines.running(), self._machines.without())
        if isinstance(found.plan, Plan):
            self._planned(self._renter.deployment(found.plan))
        return found
