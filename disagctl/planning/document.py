"""A plan with what a reader has to know beside it, for the table and for JSON."""

from typing import Any, Final

import msgspec

from disagctl.planning.catalogs import OLD_DAYS, age, days_old
from disagctl.planning.gather import Inputs, doubts
from disagctl.planning.protocol import Answer, Point
from planner.plan import Explanation, Infeasible, Plan, Row, to_json

SCHEMA_VERSION: Final = 1
DOUBTS_SHOWN: Final = 3


class PlanView(msgspec.Struct):
    """``ages``: of each row's price, in words. ``oldest``: date of the prices used. ``whole``: models in one piece."""

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
        explanation=explanation,
    )


def document(view: PlanView, sweep: list[Point] | None = None) -> dict[str, Any]:
    """What ``-o json`` prints: CONTRACT's keys, and ours beside them."""
    made = {"schema_version": SCHEMA_VERSION, "name": view.name, **to_json(view.plan)}
    for row, old in zip(made["rows"], view.ages, strict=True):
        row["price_age"] = old
    made["warnings"] = view.warnings
    made["prices"] = {"from": view.prices, "oldest": view.oldest or None}
    made["budget"] = {"max_usd_per_hour": view.budget}
    made["do_not_split"] = view.whole
    if view.explanation is not None:
        made["explanation"] = msgspec.to_builtins(view.explanation)
    if sweep:
        made["sweep"] = msgspec.to_builtins(sweep)
    return made


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
    doubtful = doubts(inputs.catalog.defects, {row.offer.where for row in plan.rows})
    said += doubtful[:DOUBTS_SHOWN]
    if len(doubtful) > DOUBTS_SHOWN:
        said.append(f"{len(doubtful) - DOUBTS_SHOWN} more doubtful rows among the prices used")
    said += [f"{model}: nothing but profiled GPUs was considered: {why}" for model, why in inputs.unknown.items()]
    return list(dict.fromkeys(said))


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
