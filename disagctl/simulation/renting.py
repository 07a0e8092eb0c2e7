"""Answers the policy's questions for nodes while it is simulated: the planner itself, in its own process."""

from collections.abc import Sequence

from disagctl.planning.renter import Renter
from planner.plan import PlanRequest, Running
from planner.run.decisions import Solve
from planner.run.fleet import NodeWish
from planner.run.observe import Planned


class SimulatedMarket:
    """A :data:`planner.sim.world.Solver`."""

    def __init__(self, request: PlanRequest) -> None:
        self._renter = Renter(request)

    def answer(self, question: Solve, wished: Sequence[NodeWish]) -> Planned:
        """The cheapest plan for the load, or why there is none. Leaving what is ``wished`` for costs something."""
        return self._renter.answer(question, [Running(wish.offers[0], wish.count) for wish in wished])
