"""What to rent: the problem, its solution, and the reasons. docs/planning.md states the problem that is solved.

``plan(request)`` does it all; the pieces are there for tests and for the curious.
"""

import msgspec

from planner.plan.budget import affords, within
from planner.plan.check import check
from planner.plan.engine import open_scene, search
from planner.plan.explain import diff, explain
from planner.plan.make import make_plan
from planner.plan.request import Egress, ModelSpec, PlanRequest, Quota, Running, StageRule
from planner.plan.result import (
    Alternative,
    Explanation,
    Infeasible,
    NodeChange,
    NodeCount,
    Plan,
    PlanDiff,
    QueueRule,
    ReplicaChange,
    Route,
    Row,
    ServiceRule,
    SolverReport,
    to_json,
)
from planner.plan.rivals import describe, rivals
from planner.plan.why import binding, no_way


def plan(request: PlanRequest, time_limit_s: float = 60.0, alternatives: bool = True) -> Plan | Infeasible:
    """The cheapest plan (or why there is none), with its alternatives. One process, blocking; deterministic unless cut short.

    ``time_limit_s``: seconds inside the solver, all solves together. A rival that turns out cheaper becomes the plan.
    """
    scene = open_scene(request, time_limit_s)
    reason = no_way(scene)
    if reason is not None:
        return reason
    found = search(scene)
    if found is None:
        return binding(request, max(time_limit_s - scene.spent_s, 5.0))
    afforded = within(scene, found)
    if isinstance(afforded, Infeasible):
        return afforded
    best, others = afforded, list(rivals(scene, afforded)) if alternatives else []
    for _, one, _ in others:
        if one is not None and affords(request, one) and one.solution.objective < best.solution.objective - 1e-9:
            best = one
    answer = make_plan(scene, best)
    if best is not afforded:  # what was to be the plan is now the one to beat
        others = [("runner-up", afforded, "found first"), *(one for one in others if one[0] != "runner-up")]
    lines = tuple(describe(name, one, remark, best) for name, one, remark in others)
    answer = msgspec.structs.replace(answer, alternatives=lines)
    wrong = check(request, answer)
    return msgspec.structs.replace(answer, warnings=(*answer.warnings, *(f"CHECK FAILED: {text}" for text in wrong)))


__all__ = [
    "Alternative",
    "Egress",
    "Explanation",
    "Infeasible",
    "ModelSpec",
    "NodeChange",
    "NodeCount",
    "Plan",
    "PlanDiff",
    "PlanRequest",
    "QueueRule",
    "Quota",
    "ReplicaChange",
    "Route",
    "Row",
    "Running",
    "ServiceRule",
    "SolverReport",
    "StageRule",
    "check",
    "diff",
    "explain",
    "plan",
    "to_json",
]
