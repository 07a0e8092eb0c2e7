"""Stage-level dispatch and placement for short latencies: which instance, at what degree, serves each stage; what is where.

After TridentServe (arXiv 2510.02838): a *dispatch plan* gives each pending stage GPUs and a degree, a *placement plan* says
which stages reside on which GPU and follows the mix, and what turns out not to reside where it is wanted is moved at dispatch.
Its dispatcher is an integer programme; ours is the multiple-choice knapsack over all GPUs, solved exactly, whose objective is
the rate at which work is finished: a request's speed-up over what it has left, to a power below 1 so that long ones are not
left over. With ``preempt`` it may also pause, which TridentServe does not.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Final

from planner.domain import Role
from planner.run.orders import DispatchConfig, Instance, Job, Load, Order, Start, Times, View
from planner.run.policies.demand import Demands, holdings, spaces
from planner.run.policies.floor import Floor
from planner.run.policies.joint import Joint, by_key
from planner.run.policies.outlook import Prospect
from planner.run.policies.placement import Move, rederive

KEEP: Final = 0.1  # of what it is worth: what a change must gain
PRICE: Final = 1.0  # of its last pause, by what it is worth where it runs
EVENLY: Final = 0.5  # 1: shortest first; 0: all alike
AHEAD_S: Final = 2.0
WIDEST: Final = 64  # waiting requests that the choice is about, at most
REVIEW_S: Final = 20.0  # between two looks at the placement plan
PATIENCE: Final = 1.0  # loads that a stage waits before weights are moved for it
NOTHING: Final[frozenset[Role]] = frozenset()


class Trident(Joint):
    """Remembers the mix, besides what it ordered."""

    def __init__(self, config: DispatchConfig, times: Times) -> None:
        super().__init__(config, times, 0.0, patient=True)
        self._demands = Demands(times)
        self._reviewed_s: float | None = None

    def decide(self, view: View, now: float) -> list[Order]:
        """Starts and changes of degree; then weights that are to move."""
        self.outlook.begin()
        floor = Floor(view, self.outlook.degrees(view), now)
        if not floor.gpus:
            return []
        self._demands.see(view, floor.accelerator, now)
        orders = (
            self.settle(view, floor, self._waiting(view, floor), self._worth, now + AHEAD_S)
            if view.pending or view.running
            else []
        )
        if not self.config.placement:
            return orders
        started = {name for order in orders if isinstance(order, Start) for name in order.requests}
        loads = self._on_dispatch(view, floor, started, now) or self._review(view, floor, now)
        return [*orders, *loads]

    def _waiting(self, view: View, floor: Floor) -> list[list[Job]]:
        """Those whose weights are somewhere, the shortest first."""
        there = {role for one in view.instances for role in one.residents}
        jobs = [job for job in view.pending if job.role in there]
        work = {job.request: self.outlook.prospect(job, floor).work_s for job in jobs}
        jobs.sort(key=lambda job: (-job.priority, work[job.request], job.seq))
        return by_key(jobs[:WIDEST], batch=self.config.batch)

    def _worth(self, job: Job, prospect: Prospect, gpus: int) -> float:
        """Speed over what is left, less for long ones. In units in which a request of one second on one GPU is worth 1.

        A change must gain a little. The pauses that a request may have are few: each is dearer than the one before.
        """
        scale = math.pow(max(prospect.work_s, 1e-3), -EVENLY) * (1 + max(job.priority, 0))
        if not gpus:
            return -PRICE * (job.pauses + 1) / self.config.max_pauses * scale * prospect.speed(prospect.has)
        return prospect.speed(gpus) * scale * (1 + KEEP if gpus == prospect.has else 1.0)

    # --- placement --------------------------------------------------------------------------------------------

    def _on_dispatch(self, view: View, floor: Floor, started: set[str], now: float) -> list[Order]:
        """A stage that waits longer than its weights would take to move has them moved to a GPU that is idle."""
        coming = {role for one in view.instances for role in _coming(one)}
        wanted = dict.fromkeys(
            job.role for job in view.pending if job.request not in started and job.role not in coming
        )
        waits = self._waits_s(view, floor, wanted, now) if wanted else {}
        for role, wait_s in waits.items():
            if wait_s <= PATIENCE * self.outlook.times.load_s(role, floor.accelerator):
                continue
            idle = floor.left()
            move = self._demands.room(idle, role, view)
            if move is not None:
                return [_load(move, idle, "a stage waits for it")]
        return []

    def _waits_s(self, view: View, floor: Floor, roles: Iterable[Role], now: float) -> dict[Role, float]:
        """Until some GPU with the role is free, by role in their order."""
        ends: dict[str, float] = {}
        for task in view.running:
            end = self.outlook.end_s(task, floor) - now
            ends.update(dict.fromkeys((task.worker, *task.peers), end))
        waits = dict.fromkeys(roles, float("inf"))
        for one in view.instances:
            end = ends.get(one.worker, 0.0)
            for role in () if one.draining else one.residents:
                if role in waits and end < waits[role]:
                    waits[role] = end
        return waits

    def _review(self, view: View, floor: Floor, now: float) -> list[Order]:
        """Now and then: the move that the mix makes most of, where it is worth what it costs."""
        if self._reviewed_s is not None and now - self._reviewed_s < REVIEW_S:
            return []
        self._reviewed_s = now
        if any(_coming(one) for one in view.instances):
            return []
        demands, idle = self._demands.rates(now), floor.left()
        loads = {one.role: self.outlook.times.load_s(one.role, floor.accelerator) for one in demands}
        move = rederive(demands, holdings(view), spaces(idle), loads)
        return [] if move is None else [_load(move, idle, "the mix has shifted")]


def _coming(at: Instance) -> frozenset[Role]:
    """Roles that load where the instance is."""
    own = NOTHING if at.loading is None else frozenset((at.loading,))
    return own if at.card is None else own | at.card.coming


def _load(move: Move, idle: Sequence[Instance], why: str) -> Load:
    """By way of a worker there whose role goes, if one does."""
    there = [one for one in idle if one.place == move.place]
    at = min(there, key=lambda one: (one.residents.isdisjoint(move.drop), one.worker))
    return Load(at.worker, move.role, move.drop, why)
