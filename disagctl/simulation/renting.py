"""Answers the policy's questions for nodes while it is simulated: the planner itself, in its own process."""

from typing import Final

from msgspec.structs import replace

from disagctl.errors import DisagctlError
from disagctl.planning.protocol import Job
from disagctl.planning.solver_process import solve
from planner.domain import Workload
from planner.plan import Plan, PlanRequest, Running
from planner.run.decisions import Solve
from planner.run.observe import Planned

SOLVE_S: Final = 20.0
DIGITS: Final = 2  # of a rate that are planned for: what differs by less gets the same answer, at once


class Renter:
    """Remembers answers, and what the last one rented: leaving it costs something."""

    def __init__(self, request: PlanRequest) -> None:
        self._request = request
        self._answers: dict[tuple[Workload, tuple[Running, ...]], Planned] = {}
        self._running: tuple[Running, ...] = ()

    def answer(self, question: Solve) -> Planned:
        """The cheapest plan for the load, or why there is none."""
        classes = tuple(
            replace(one, rate_per_s=float(f"{one.rate_per_s:.{DIGITS}g}")) for one in question.workload.classes
        )
        workload = replace(question.workload, classes=classes)
        key = (workload, self._running)
        if key not in self._answers:
            self._answers[key] = self._solve(workload)
        found = self._answers[key]
        if isinstance(found.plan, Plan):
            self._running = tuple(Running(node.offer, node.nodes) for node in found.plan.nodes)
        return replace(found, id=question.id)

    def _solve(self, workload: Workload) -> Planned:
        request = replace(self._request, workload=workload, running=self._running)
        try:
            return Planned(0, solve(Job(request, SOLVE_S, alternatives=False)).plan)
        except DisagctlError as err:  # the policy goes on with what it has, as it would in life
            return Planned(0, error=str(err))
