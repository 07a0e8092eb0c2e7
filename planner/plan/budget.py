"""The budget: compared with the optimum first, and a row of the program only where that may make a difference."""

import msgspec

from planner.plan.engine import Found, Scene, open_scene, search
from planner.plan.request import PlanRequest
from planner.plan.result import Infeasible
from planner.plan.why import over_budget

EDGE = 1e-9  # relative: a plan that costs the budget is within it


def affords(request: PlanRequest, found: Found) -> bool:
    """Whether a solution is within the budget, if there is one."""
    limit = request.max_usd_per_hour
    return limit is None or found.usd_per_hour <= limit * (1 + EDGE)


def within(scene: Scene, found: Found) -> Found | Infeasible:
    """A solution within the budget, the one at hand if it is.

    A dearer one says nothing when it minimised penalties of change too, or only to a gap: then solved again under the budget.
    """
    request = scene.universe.request
    if affords(request, found):
        return found
    if not request.running and found.solution.gap <= EDGE:
        return over_budget(request, found.usd_per_hour)
    scene.capped = True
    cheaper = search(scene)
    scene.capped = False
    return cheaper or over_budget(request, _cheapest(scene, found).usd_per_hour)


def _cheapest(scene: Scene, found: Found) -> Found:
    """With what runs forgotten, so that only money counts."""
    if not scene.universe.request.running:
        return found
    fresh = open_scene(msgspec.structs.replace(scene.universe.request, running=()), scene.left_s)
    return min((one for one in (found, search(fresh)) if one is not None), key=lambda one: one.usd_per_hour)
