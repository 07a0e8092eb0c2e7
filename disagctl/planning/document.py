"""A plan with what a reader has to know beside it, for the table and for JSON."""

from typing import Any, Final

import msgspec

from disagctl.planning.catalogs import OLD_DAYS, age, days_old
from disagctl.planning.digest import digests
from disagctl.planning.gather import Inputs, doubts
from disagctl.planning.plan_file import SCHEMA_VERSION
from disagctl.planning.protocol import Answer, Point
from planner.plan import Explanation, Infeasible, Plan, PlanDiff, Row, diff, to_json

DOUBTS_SHOWN: Final = 3
HARDLY: Final = 0.03  # less is within the error of every number that a plan stands on


class Change(msgspec.Struct):
    """From what runs to the plan. ``penalty_usd_per_hour``: what starting and stopping weighed in the choice, unbilled."""

    diff: PlanDiff
    penalty_usd_per_hour: float


class PlanView(msgspec.Struct):
    """``ages``: of each row's price, in words. ``oldest``: date of the prices used. ``whole``: models in one piece.

    ``digests``: of the spec's parts that this is a plan for. ``change``: from the plan that runs.
    """

    name: str
    plan: Plan
    prices: str
    oldest: str
    ages: list[str]
    budget: float | None
    warnings: list[str]
    whole: list[str]
    stages: dict[str, tuple[str, ...]]
    usable_gib: dict[str, float]
    digests: dict[str, str] = {}
    change: Change | None = None
    explanation: Explanation | None = None


def plan_view(inputs: Inputs, plan: Plan, explanation: Explanation | None = None) -> PlanView:
    """What is shown of a plan."""
    used = [node.offer for node in plan.nodes] or [row.offer for row in plan.rows]
    dates = sorted((inputs.catalog.as_of(offer) for offer in used), key=lambda date: -(days_old(date) or 0))
    stages = {model.name: model.stages for model in inputs.request.models}
    return PlanView(
        name=inputs.spec.name,
        plan=plan,
        prices=inputs.catalog.label,
        oldest=dates[0] if dates else "",
        ages=[age(inputs.catalog.as_of(row.offer)) for row in plan.rows],
        budget=inputs.request.max_usd_per_hour,
        warnings=_warnings(inputs, plan, dates),
        whole=_whole(plan.rows, stages),
        stages=stages,
        usable_gib={gpu.name: gpu.usable_gib for gpu in inputs.request.gpus},
        digests=digests(inputs.spec),
        change=_change(inputs, plan),
        explanation=explanation,
    )


def _change(inputs: Inputs, plan: Plan) -> Change | None:
    if inputs.before is None:
        return None
    made = diff(inputs.before.plan(), plan)
    prices = {str(one.offer): one.offer.usd_per_hour for one in [*inputs.before.plan().nodes, *plan.nodes]}
    request, penalty = inputs.request, 0.0
    for one in made.nodes:
        each = request.start_penalty if one.after > one.before else request.stop_penalty
        penalty += each * abs(one.after - one.before) * prices[str(one.offer)]
    return Change(made, penalty)


def document(view: PlanView, sweep: list[Point] | None = None) -> dict[str, Any]:
    """What ``-o json`` prints: CONTRACT's keys, and ours beside them."""
    made = {"schema_version": SCHEMA_VERSION, "name": view.name, **to_json(view.plan)}
    for row, old in zip(made["rows"], view.ages, strict=True):
        row["price_age"] = old
    for part in [*made["rows"], *made["nodes"]]:
        del part["offer"]["kind"]
    made["models"] = [{"name": name, "stages": list(stages)} for name, stages in view.stages.items()]
    made["spec"] = view.digests
    if view.change is not None:
        made["diff"] = _diff_document(view.change)
    made["warnings"] = view.warnings
    made["prices"] = {"from": view.prices, "oldest": view.oldest or None}
    made["budget"] = {"max_usd_per_hour": view.budget}
    made["do_not_split"] = view.whole
    made["advice"] = advice(view) or None
    if view.explanation is not None:
        made["explanation"] = msgspec.to_builtins(view.explanation)
    if sweep:
        made["sweep"] = msgspec.to_builtins(sweep)
    return made


def _diff_document(change: Change) -> dict[str, Any]:
    made: dict[str, Any] = msgspec.to_builtins(change.diff)
    for one in made["nodes"]:
        one["offer"] = {
            key: one["offer"][key] for key in ("cloud", "region", "instance_type", "accelerator", "count", "spot")
        }
    return {**made, "penalty_usd_per_hour": change.penalty_usd_per_hour}


def refusal(name: str, why: str, **more: Any) -> dict[str, Any]:
    """The same for no plan."""
    return {
        "schema_version": SCHEMA_VERSION,
        "name": name,
        "feasible": False,
        "why": why,
        "rows": [],
        "alternatives": [],
        **more,
    }


def no_plan(name: str, found: Infeasible) -> dict[str, Any]:
    """The same for a plan that the planner has shown not to exist."""
    return refusal(
        name,
        found.why,
        kind=found.kind,
        constraint=found.constraint,
        relaxation=found.relaxation,
        usd_per_hour=found.usd_per_hour,
    )


def _warnings(inputs: Inputs, plan: Plan, dates: list[str]) -> list[str]:
    said = [*plan.warnings, *inputs.warnings]
    old = [date for date in dates if (days_old(date) or 0) > OLD_DAYS]
    if old:
        said.append(f"prices as old as {old[0]}: look at today's before you rent (--catalog)")
    doubtful = doubts(inputs.catalog.defects, (row.offer for row in plan.rows))
    said += doubtful[:DOUBTS_SHOWN]
    if len(doubtful) > DOUBTS_SHOWN:
        said.append(f"{len(doubtful) - DOUBTS_SHOWN} more doubtful rows among the prices used")
    said += [f"{model}: nothing but profiled GPUs was considered: {why}" for model, why in inputs.unknown.items()]
    return list(dict.fromkeys(said))


def advice(view: PlanView) -> str:
    """Splitting is not an end in itself: say where it loses, and where it hardly wins. "" where it wins."""
    plan = view.plan
    if view.whole:
        return f"do not split {' and '.join(view.whole)} for this load: whole pipelines on each GPU are cheapest"
    costs = [one.usd_per_hour for one in plan.alternatives if one.name.startswith("whole pipeline")]
    least = min((usd for usd in costs if usd is not None), default=None)
    if least is None or not 0 < least <= plan.usd_per_hour * (1 + HARDLY):
        return ""
    saved = max(1 - plan.usd_per_hour / least, 0.0)
    return f"splitting saves {saved:.1%} here: whole pipelines on each GPU cost ${least:.2f}/h, and move no tensors"


def _whole(rows: tuple[Row, ...], stages: dict[str, tuple[str, ...]]) -> list[str]:
    """Models of several stages whose rows all hold the whole pipeline."""
    found = []
    for model, names in stages.items():
        mine = [row for row in rows if row.model == model]
        if len(names) > 1 and mine and all(set(row.stage.split("+")) == set(names) for row in mine):
            found.append(model)
    return found


def planned(answer: Answer) -> Plan | Infeasible:
    """The answer's plan; a process that answered has one."""
    assert answer.plan is not None  # noqa: S101
    return answer.plan
