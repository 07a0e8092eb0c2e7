"""Discrete events on a virtual clock around the objects that run a real service: Ledger, lay_out, Observer and Policy.

Only what lies outside them is made up: machines, weights that load, requests that take their time. Deterministic: events of
the same moment happen in the order in which they were put down, and every random number comes from the scenario's seed.
"""

import heapq
import math
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from planner.run import effects as fx
from planner.run.book import Limits, Request
from planner.run.config import PolicyConfig, Predict
from planner.run.decisions import Decision, SetCounts, Solve, WishNodes
from planner.run.fleet import NodeWish
from planner.run.ledger import Ledger
from planner.run.observe import Observer, Planned
from planner.run.policy import Policy
from planner.sim.fleet import Fleet
from planner.sim.machines import READY, SimWorker, Task
from planner.sim.report import Action, Ended, Run, Sample
from planner.sim.rng import Rng
from planner.sim.scenario import Scenario

LEDGER_S: Final = 1.0
SAMPLES: Final = 600  # of a timeline, about
SOLVE_S: Final = 5.0  # virtual seconds until the planner has answered

Solver = Callable[[Solve, Sequence[NodeWish]], Planned]
"""(question, nodes wished for at the moment) → answer"""
Schedule = Sequence[tuple[float, SetCounts]]


class Tools(msgspec.Struct, frozen=True):
    """``solver`` answers the policy's Solves (None: nobody does); ``policy`` makes one (a caller may want to time it)."""

    solver: Solver | None = None
    policy: Callable[[PolicyConfig, Predict], Policy] = Policy


class World:
    """One run. ``plan``: (seconds, counts): the first are there at the begin, ready; later ones come when the trace does not
    ask but a schedule does (baselines). ``tools``: what the world cannot have of its own, being pure."""

    def __init__(self, scenario: Scenario, name: str, plan: Schedule, tools: "Tools | None" = None) -> None:
        self.scenario, self.name = scenario, name
        self.now = 0.0
        self.ledger = Ledger(1, Limits(lease_s=math.inf, stall_s=math.inf))
        self.observer = Observer()
        tools = tools or Tools()
        self.policy = tools.policy(scenario.policy, scenario.predicted or scenario.seconds)
        self._solver = tools.solver
        self._events: list[tuple[float, int, Callable[..., None], tuple[object, ...]]] = []
        self._count = 0
        self._rng = Rng(scenario.seed)
        self._service, self._hop = self._rng.split("service"), self._rng.split("transfer")
        self._plan = plan
        self.fleet = Fleet(self, plan[0][1])
        self._next = 0  # of the trace
        self._arrived_s: dict[str, float] = {}
        self._ended: list[Ended] = []
        self._samples: list[Sample] = []
        self.actions: list[Action] = []
        self.rebalances_s: list[float] = []
        self._stirred = True
        self._failed = 0
        self.end_s = scenario.end_s if scenario.end_s is not None else scenario.trace.end_s

    # --- running ----------------------------------------------------------------------------------------------

    def run(self) -> Run:
        """Until the end; what there is to say of it."""
        scenario = self.scenario
        self.fleet.begin()
        if scenario.in_flight:
            for _ in range(min(scenario.in_flight, len(scenario.trace.rows))):
                self._submit()
        else:
            self._await_arrival()
        for when_s, decision in self._plan[1:]:
            self.at(when_s, self.perform, decision)
        self.at(LEDGER_S, self._tick_ledger)
        self.at(0.0, self._tick_policy)
        self.at(0.0, self._sample)
        self._act()
        events, end_s = self._events, self.end_s
        while events and events[0][0] <= end_s:
            self.now, _, event, args = heapq.heappop(events)
            event(*args)
            self._act()
        self.now = end_s
        late = sum(
            end_s - since > scenario.slo_s.get(self.ledger.requests[name].model, math.inf)
            for name, since in self._arrived_s.items()
        )
        return Run(
            name=self.name, roles=scenario.roles, end_s=end_s, arrived=self._next, ended=tuple(self._ended),
            samples=tuple(self._samples), actions=tuple(self.actions), usd=self.fleet.usd_until(end_s),
            redelivered=self.ledger.redelivered, failed=self._failed, rebalances_s=tuple(self.rebalances_s),
            judged=len(self._ended) + late,
        )  # fmt: skip

    def at(self, when_s: float, event: Callable[..., None], *args: object) -> None:
        """Have it happen then."""
        self._count += 1
        heapq.heappush(self._events, (when_s, self._count, event, args))

    def after(self, delay_s: float, event: Callable[..., None], *args: object) -> None:
        """Have it happen in so many seconds."""
        self.at(self.now + delay_s, event, *args)

    def stream(self, name: str) -> Rng:
        """Random numbers of their own."""
        return self._rng.split(name)

    # --- requests ---------------------------------------------------------------------------------------------

    def _await_arrival(self) -> None:
        rows = self.scenario.trace.rows
        if self._next < len(rows):
            self.at(max(rows[self._next].at_s, self.now), self._arrive)

    def _arrive(self) -> None:
        self._submit()
        self._await_arrival()

    def _submit(self) -> None:
        if self._next >= len(self.scenario.trace.rows):
            return
        index, row = self._next, self.scenario.trace.rows[self._next]
        self._next += 1
        name = str(index)
        self._arrived_s[name] = self.now
        self.ledger.submit(Request(name, row.model, self.scenario.stages[row.model], b"", 0, self.now))
        self.observer.arrived(row.model, row.shape, self.now)

    def _act(self) -> None:
        """Perform what the ledger wants done."""
        for effect in self.ledger.effects(self.now):
            self._stirred = True
            match effect:
                case fx.Assign():
                    self._assign(effect)
                case fx.Publish(ref=ref):
                    self.after(self.scenario.noise.publish_s, self._published, ref.request)
                case fx.CancelTask(worker=worker, ref=ref):
                    known = self.fleet.workers.get(worker)
                    if known is not None:
                        known.tasks = [task for task in known.tasks if task.ref != ref]
                case fx.Release(worker=worker):
                    self.fleet.left(worker)
                case fx.Finish(request=request):
                    self._failed += 1
                    self._over(request)
                case fx.Condemn():
                    pass

    def _published(self, request: str) -> None:
        row = self.scenario.trace.rows[int(request)]
        self.ledger.published(request)
        latency = self.now - self._arrived_s[request]
        self._ended.append(Ended(self.now, latency, row.model, row.shape))
        self.observer.finished(row.model, row.shape, latency, self.now)
        self._over(request)

    def _over(self, request: str) -> None:
        del self._arrived_s[request]
        if self.scenario.in_flight:
            self._submit()

    # --- workers ----------------------------------------------------------------------------------------------

    def _assign(self, effect: fx.Assign) -> None:
        worker = self.fleet.workers.get(effect.worker)
        if worker is None or not worker.serves:
            self.ledger.returned(effect.worker, effect.ref)
            return
        index = int(effect.ref.request)
        self.observer.assigned(worker.role, self.scenario.trace.rows[index].shape)
        noise = self.scenario.noise
        first = effect.input is None
        worker.tasks.append(
            Task(effect.ref, index, READY if first or noise.transfer_s + noise.jitter_share <= 0 else -1)
        )
        self._advance(worker)

    def _advance(self, worker: SimWorker) -> None:
        """One computation and one fetch at a time, oldest first; one after the other when synchronous."""
        busy = worker.computing is not None
        taken = any(
            other.computing is not None for other in self.fleet.beside(worker)
        )  # one computes on a GPU at a time
        if not busy and not taken and not (self.scenario.synchronous and worker.fetching):
            task = next((task for task in worker.tasks if task.state == READY), None)
            if task is not None:
                worker.tasks.remove(task)
                self._compute(worker, task)
                busy = True
        if not worker.fetching and not (self.scenario.synchronous and busy):
            task = next((task for task in worker.tasks if task.state < 0), None)
            if task is not None:
                task.state, worker.fetching = 0, True
                noise = self.scenario.noise
                late = noise.jitter_s if noise.jitter_share and self._hop.uniform() < noise.jitter_share else 0.0
                self.after(noise.transfer_s + late, self._fetched, worker, task)

    def _fetched(self, worker: SimWorker, task: Task) -> None:
        worker.fetching = False
        task.state = READY
        if not worker.gone:
            self._advance(worker)

    def _compute(self, worker: SimWorker, task: Task) -> None:
        scenario = self.scenario
        worker.computing = task
        self.ledger.started(worker.id, task.ref, self.now)
        shape = scenario.trace.rows[task.request].shape
        seconds = scenario.seconds(worker.role, worker.accelerator, shape)
        if scenario.noise.service_sigma:
            seconds = self._service.lognormal(seconds, scenario.noise.service_sigma)
        if worker.fresh:
            seconds *= scenario.noise.first_task_factor
        self.after(seconds, self._computed, worker, task, seconds)

    def _computed(self, worker: SimWorker, task: Task, seconds: float) -> None:
        if worker.gone:
            return
        worker.computing = None
        shape = self.scenario.trace.rows[task.request].shape
        self.observer.completed(worker.role, worker.accelerator, shape, seconds, first=worker.fresh)
        worker.fresh = False
        self.ledger.done(worker.id, task.ref, task.ref.key, seconds)
        for one in self.fleet.in_turn(worker):
            self._advance(one)
        self.fleet.drained(worker)

    # --- the loops --------------------------------------------------------------------------------------------

    def _tick_ledger(self) -> None:
        if self._stirred:
            self._stirred = False
            self.ledger.tick(self.now)
        self.after(LEDGER_S, self._tick_ledger)

    def _tick_policy(self) -> None:
        seen = self.fleet.observe()
        for decision in self.policy.decide(seen, self.now):
            self.perform(decision)
        self.after(self.scenario.policy.interval_s, self._tick_policy)

    def perform(self, decision: Decision) -> None:
        """Carry out a decision, and write it down."""
        why = decision.why
        match decision:
            case SetCounts(counts=counts):
                listed = tuple(counts.get(role, 0) for role in self.scenario.roles)
                self.actions.append(Action(self.now, "counts", why.code, why.text, listed))
                self.fleet.set_counts(decision)
            case WishNodes(wishes=wishes):
                self.actions.append(Action(self.now, "nodes", why.code, why.text))
                self.fleet.wish(wishes)
            case Solve() if self._solver is not None:
                self.after(SOLVE_S, self.observer.planned, self._solver(decision, self.fleet.wishes))
            case _:
                pass

    def _sample(self) -> None:
        self._samples.append(self.fleet.sample(len(self._arrived_s)))
        self.after(max(self.end_s / SAMPLES, 1.0), self._sample)
