"""What the simulated fleet is made of: GPUs (or fixed groups of them), requests on their way, tasks that compute."""

import math
from typing import Final

from planner.domain import Role
from planner.run.orders import Instance, Job, Running
from planner.sim.coserve.laws import DENOISE, WHOLE
from planner.sim.coserve.workload import Arrival

NUDGE: Final = 1e-9  # a moment that is a boundary up to rounding counts as one


class Gpu:
    """One GPU, or ``count`` that are one instance for good; ``joins``: it may be lent to a colleague of its node."""

    def __init__(
        self,
        name: str,
        node: str,
        residents: frozenset[Role],
        memory_gib: float,
        count: int = 1,
        *,
        joins: bool = False,
    ) -> None:
        self.id, self.node, self.residents, self.count, self.joins = name, node, residents, count, joins
        self.memory_gib = memory_gib
        self.accelerator = ""
        self.task: Task | None = None
        self.loading: Role | None = None

    @property
    def idle(self) -> bool:
        """Whether it could start something at once."""
        return self.task is None and self.loading is None

    def instance(self) -> Instance:
        """As a policy sees it."""
        return Instance(
            self.id, self.node, self.accelerator, self.residents, int(self.idle), (self.count,), self.joins,
            self.memory_gib, self.loading,
        )  # fmt: skip


class Item:
    """A request on its way. ``left``: steps of the stage it is at; None: all of them."""

    def __init__(self, name: str, arrival: Arrival, seq: int, stages: tuple[str, ...]) -> None:
        self.name, self.arrival, self.seq, self.stages = name, arrival, seq, stages
        self.at = 0
        self.left: int | None = None
        self.held_by = ""
        self.pauses = 0
        self.refresh()

    def refresh(self) -> None:
        """Make :attr:`job` say how things are."""
        arrival, stage = self.arrival, self.stages[min(self.at, len(self.stages) - 1)]
        steps = arrival.shape.steps if stage in {DENOISE, WHOLE} else 1
        left = steps if self.left is None else self.left
        shape = arrival.shape
        self.job = Job(
            self.name, Role(arrival.model, stage), shape, arrival.at_s, self.seq, steps, left,
            deadline_s=arrival.due_s, pauses=self.pauses, after=self.stages[self.at + 1 :], held_by=self.held_by,
            batch_key=f"{arrival.model} {stage} {shape}" if left == steps else "",
        )  # fmt: skip


class Task:
    """A batch that computes. ``noise``: what its steps take over what is predicted."""

    def __init__(self, items: tuple[Item, ...], gpus: tuple[Gpu, ...], degree: int) -> None:
        self.items, self.gpus, self.degree = items, gpus, degree
        self.noise = 1.0
        self.version = 0
        self.pausing = False
        self.begin(0.0, 0.0, 0, 0.0)

    def begin(self, now: float, setup_s: float, left: int, step_s: float) -> None:
        """So many steps from now on."""
        self.version += 1
        self.since_s, self._first_s, self._left, self._step_s = now, now + setup_s, left, step_s
        self.end_s = self._first_s + left * step_s

    def _done(self, now: float) -> int:
        if now <= self._first_s or self._step_s <= 0:
            return 0
        return min(math.floor((now - self._first_s) / self._step_s + NUDGE), self._left)

    def left(self, now: float) -> int:
        """Steps not computed; the one in progress counts."""
        return self._left - self._done(now)

    def boundary_s(self, now: float) -> float:
        """When the step in progress ends."""
        done = self._done(now)
        at = self._first_s + done * self._step_s
        return at if at >= now else self._first_s + (done + 1) * self._step_s

    def running(self, now: float) -> Running:
        """As a policy sees it."""
        left = self.left(now)
        done = self._left - left
        jobs = tuple(
            Job(
                job.request, job.role, job.shape, job.arrived_s, job.seq, job.steps, left, job.priority, job.deadline_s,
                job.pauses, job.after, job.held_by, job.batch_key, job.avoid,
            )
            for job in (item.job for item in self.items)
        )  # fmt: skip
        peers = tuple(gpu.id for gpu in self.gpus[1:])
        return Running(self.gpus[0].id, jobs, self._first_s + done * self._step_s, self.degree, peers, self.pausing)
