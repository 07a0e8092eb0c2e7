"""Answers the control loop's questions for machines: the planner, in a process of its own, at the prices it was given."""

from collections.abc import Collection, Iterable
from typing import Final

from msgspec.structs import replace

from disagctl.errors import DisagctlError
from disagctl.planning.protocol import Job
from disagctl.planning.solver_process import solve
from planner.domain import Offer, Profile, Role, Workload
from planner.facts import Book
from planner.plan import Infeasible, Plan, PlanRequest, Running, StageRule
from planner.plan.market import usable_offers
from planner.precision import of_stages, resolved
from planner.run.decisions import Measured, Solve
from planner.run.observe import Planned
from planner.run.rent import Deployment, deployment, key_of

SOLVE_S: Final = 20.0
DIGITS: Final = 2  # of a rate that is planned for: what differs by less gets the same answer, at once
TRIES: Final = 10  # solves for one question, when there is no plan for all of the load
FINE: Final = 0.2  # how well the share that can be had is known
REMEMBERED: Final = 64

Question = tuple[Workload, tuple[Running, ...], tuple[Measured, ...], frozenset[str]]


class Renter:
    """Remembers answers. ``request``: what the service was planned with; one GPU a worker."""

    def __init__(self, request: PlanRequest) -> None:
        self._request = replace(request, max_gpus_per_replica=1)
        self._market = stand_ins(request)
        self._answers: dict[Question, Planned] = {}

    def answer(self, question: Solve, running: Iterable[Running], without: Collection[str] = ()) -> Planned:
        """The cheapest plan for the load, or for as much of it as can be had; or why there is none.

        ``running``: machines there are; ``without``: offers that have no capacity at the moment, by their names.
        """
        classes = tuple(
            replace(one, rate_per_s=float(f"{one.rate_per_s:.{DIGITS}g}")) for one in question.workload.classes
        )
        measured = tuple(replace(one, seconds=float(f"{one.seconds:.{DIGITS}g}")) for one in question.measured)
        key = (replace(question.workload, classes=classes), tuple(running), measured, frozenset(without))
        if key not in self._answers:
            if len(self._answers) >= REMEMBERED:
                self._answers.clear()
            self._answers[key] = self._solve(*key)
        return replace(self._answers[key], id=question.id)

    def deployment(self, plan: Plan) -> Deployment:
        """The plan as machines, and what may stand in for them."""
        request = self._request
        return deployment(plan, self._market, request.max_usd_per_hour, cross_cloud=request.cross_cloud)

    def _solve(
        self,
        workload: Workload,
        running: tuple[Running, ...],
        measured: tuple[Measured, ...],
        without: frozenset[str],
    ) -> Planned:
        own = {key_of(one.offer): one.nodes for one in running}
        offers = tuple(
            replace(offer, max_nodes=own.get(key_of(offer), 0)) if key_of(offer) in without else offer
            for offer in self._request.offers
        )
        request = replace(
            self._request, offers=offers, running=running, profiles=with_measured(self._request, measured)
        )
        found: Plan | Infeasible | None = None
        best: Planned | None = None
        least, most = 0.0, 1.0  # shares of the load: one that can be had, and one that is worth a try
        for _ in range(TRIES):
            try:
                found = self._plan(request, workload, most)
            except DisagctlError as err:  # whoever asked goes on with what it has
                return best or Planned(0, error=str(err))
            if isinstance(found, Plan):
                best = Planned(0, found, wishes=self.deployment(found).wishes, share=most)
                if most == 1.0 or most - least < FINE * most:
                    break
                least, most = most, most + (most - least) / 2
            elif found is not None and found.kind == "no_profile":
                break
            else:
                most = (least + most) / 2
        return best or Planned(0, found, error=found.why if isinstance(found, Infeasible) else "")

    @staticmethod
    def _plan(request: PlanRequest, workload: Workload, share: float) -> Plan | Infeasible | None:
        classes = tuple(replace(one, rate_per_s=one.rate_per_s * share) for one in workload.classes)
        asked = replace(request, workload=replace(workload, classes=classes))
        return solve(Job(asked, SOLVE_S, alternatives=False)).plan


def stand_ins(request: PlanRequest) -> list[Offer]:
    """What may stand in for a machine: within the spec's infra, and of the kind (spot or not) that every stage with a wish
    allows."""
    wished = {rule.spot for rule in request.rules} - {None}
    return [offer for offer in usable_offers(request) if all(offer.spot == spot for spot in wished)]


def with_measured(request: PlanRequest, measured: Iterable[Measured]) -> tuple[Profile, ...]:
    """The request's timings with the measured seconds in their place; memory and loads stay as they were known."""
    book = Book(request.profiles, request.facts, request.gpus)
    precisions = precisions_of(request)
    rows: dict[tuple[str, str, str, object, str], Profile] = {}
    for one in measured:
        role, precision = one.role, precisions.get(one.role, "")
        known = book.predict(role.model, role.stage, one.accelerator, one.shape, 1, precision)
        if known is not None:
            rows[role.model, role.stage, one.accelerator, one.shape, precision] = Profile(
                role.model, role.stage, one.accelerator, one.shape, one.seconds, known.peak_gib, "measured",
                precision=precision, weights_gib=known.weights_gib, load_s=known.load_s, origin="measured by this service",
            )  # fmt: skip
    old = (
        row
        for row in request.profiles
        if row.gpus != 1 or (row.model, row.stage, row.gpu, row.shape, row.precision) not in rows
    )
    return (*old, *rows.values())


def precisions_of(request: PlanRequest) -> dict[Role, str]:
    """How each stage's weights are held: the first that its rule, or its model, allows."""
    own = {model.name: model.precisions[0] for model in request.models}
    found = {Role(model.name, stage): model.precisions[0] for model in request.models for stage in model.stages}
    for rule in request.rules:
        if rule.precisions:
            found[Role(rule.model, rule.stage)] = resolved(rule.precisions[0], own.get(rule.model, ""))
    return found


def as_planned(request: PlanRequest, plan: Plan) -> PlanRequest:
    """The request with each stage held as the plan has it, on as many GPUs: what is rented later loads the same weights."""
    chosen: dict[Role, tuple[str, int]] = {}
    for row in plan.rows:
        for stage, precision in of_stages(row.precision, row.stage.split("+")).items():
            chosen.setdefault(Role(row.model, stage), (precision, row.gpus_per_replica))
    rules = {Role(rule.model, rule.stage): rule for rule in request.rules}
    for role, (precision, gpus) in chosen.items():
        rule = rules.get(role) or StageRule(role.model, role.stage)
        rules[role] = replace(rule, precisions=(precision,), gpus=gpus if gpus > 1 else rule.gpus)
    return replace(request, rules=tuple(rules.values()), offers=tuple(usable_offers(request)), running=())
