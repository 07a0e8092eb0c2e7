"""From a spec, or a saved plan, to what is to be rented: the plan at today's prices and what may stand in for each machine."""

from pathlib import Path
from typing import Final

import msgspec

from disagctl.errors import DisagctlError, InfeasibleError, OverBudgetError
from disagctl.planning.document import PlanView, plan_view, planned
from disagctl.planning.gather import Inputs, gather
from disagctl.planning.plan_file import whole
from disagctl.planning.profiles import PRECISIONS
from disagctl.planning.renter import Renter, as_planned
from disagctl.planning.rules import startable
from disagctl.planning.saved import accept
from disagctl.planning.solver_process import Waiting, solve
from disagctl.planning.sweep import job_of
from disagctl.planning.widths import widths
from disagctl.spec import Spec
from planner.plan import Infeasible, Plan, Running
from planner.plan.market import sku, usable_offers
from planner.precision import of_stages
from planner.run.rent import Deployment

TIME_LIMIT_S: Final = 30.0


def deploy(
    spec: Spec, path: Path, saved: Path | None, running: tuple[Running, ...], waiting: Waiting
) -> tuple[PlanView, Deployment]:
    """Plan, or take the saved plan. ``running``: machines there are, which it prefers to keep.

    Raises InfeasibleError, OverBudgetError (also when prices have risen above the budget, or by more than 5 % of a saved
    plan's), SpecError, WaitTimeout.
    """
    inputs = gather(spec, path)
    roles = [(model.name, stage) for model in inputs.request.models for stage in model.stages]
    inputs.request = msgspec.structs.replace(
        inputs.request, running=running, rules=startable(inputs.request.rules, roles)
    )
    if saved is not None:
        plan = _repriced(saved, spec, path, inputs)
    else:
        found = planned(solve(job_of(inputs.request, TIME_LIMIT_S, None), waiting=waiting))
        if isinstance(found, Infeasible):
            raise refused(found)
        plan = found
    _check(plan)
    settle(spec, plan)
    made = Renter(inputs.request).deployment(plan)
    return plan_view(inputs, plan), msgspec.structs.replace(made, request=as_planned(inputs.request, plan))


def refused(found: Infeasible) -> DisagctlError:
    """The error that says why there is no plan; CONTRACT's exit code goes with its class."""
    if found.kind == "over_budget":
        return OverBudgetError("every plan costs more than the budget", why=found.why, next=found.relaxation)
    code = "profile_first" if found.kind == "no_profile" else None
    return InfeasibleError(f"there is no plan ({found.constraint})", why=found.why, next=found.relaxation, code=code)


def _repriced(path: Path, spec: Spec, spec_path: Path, inputs: Inputs) -> Plan:
    """The saved plan with each offer's price of today. Raises as ``accept`` does."""
    live = accept(path, spec, spec_path)
    saved = whole(path)
    today = {sku(offer): offer for offer in usable_offers(inputs.request)}
    missing = next((node.offer for node in saved.nodes if sku(node.offer) not in today), None)
    if missing is not None:
        raise InfeasibleError(
            f"{path}: {missing} may not be used", why="the spec's infra or resources leave it out", next="plan it again",
            code="offer_gone",
        )  # fmt: skip
    rows = []
    for row in saved.rows:
        now = today[sku(row.offer)]
        factor = now.usd_per_hour / row.offer.usd_per_hour if row.offer.usd_per_hour else 1.0
        rows.append(msgspec.structs.replace(row, offer=now, usd_per_hour=row.usd_per_hour * factor))
    nodes = tuple(
        msgspec.structs.replace(n, offer=today[sku(n.offer)], usd_per_hour=n.nodes * today[sku(n.offer)].usd_per_hour)
        for n in saved.nodes
    )
    return msgspec.structs.replace(saved, rows=tuple(rows), nodes=nodes, usd_per_hour=live.usd_per_hour)


def settle(spec: Spec, plan: Plan) -> None:
    """Set the spec's precisions and GPUs a worker to the plan's. Raises InfeasibleError for a stage planned in two ways."""
    own = {entry.name: PRECISIONS[entry.dtype] for entry in spec.models}
    chosen: dict[tuple[str, str], str] = {}
    gpus = widths(plan.rows)
    for row in plan.rows:
        for stage, precision in of_stages(row.precision, row.stage.split("+")).items():
            if chosen.setdefault((row.model, stage), precision) != precision:
                raise InfeasibleError(
                    f"the plan has {stage} in {chosen[row.model, stage]} and in {precision}", code="two_precisions",
                    why="this version loads a stage the same way everywhere",
                    next=f"name one: stages.{stage}.precision",
                )  # fmt: skip
    for (model, stage), precision in chosen.items():
        wish = spec.wish(model, stage)
        settled = wish.settled(precision, own[model]).on(gpus[model, stage])
        if settled != wish:
            spec.stages[f"{model}.{stage}"] = settled


def _check(plan: Plan) -> None:
    """What this version cannot start."""
    unpriced = next((node.offer for node in plan.nodes if not 0 <= node.offer.usd_per_hour < float("inf")), None)
    if unpriced is not None:
        raise OverBudgetError(
            f"{unpriced} has no price", why="nothing is rented at an unknown price", next="add its price"
        )
