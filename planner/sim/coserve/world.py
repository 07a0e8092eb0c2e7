"""A fleet on a virtual clock that does what a dispatch policy orders. Deterministic: all random numbers come from the seed.

Steps are not events: a task's next boundary follows from when it began, so that a run costs as many events as there are orders.
What is ordered and no longer fits is dropped, as :mod:`planner.run.orders` says.
"""

import heapq
import math
from collections.abc import Callable, Sequence

from planner.domain import Role
from planner.run.orders import AskAgain, DispatchPolicy, Load, Order, Pause, SetDegree, Start, View
from planner.sim.coserve.fleet import Gpu, Item, Task
from planner.sim.coserve.laws import DENOISE, WHOLE, Laws, stages_of
from planner.sim.coserve.report import Served, Summary
from planner.sim.coserve.workload import Arrival
from planner.sim.rng import Rng


class CoWorld:
    """One run of one policy. ``whole``: requests pass as one stage (whole pipelines); else stage by stage."""

    def __init__(
        self,
        arrivals: Sequence[Arrival],
        gpus: Sequence[Gpu],
        policy: DispatchPolicy,
        laws: Laws,
        *,
        whole: bool = False,
        noise_sigma: float = 0.0,
        seed: int = 0,
        on_decide: Callable[[View], None] | None = None,
    ) -> None:
        self.now = 0.0
        self._arrivals, self._policy, self._laws = arrivals, policy, laws
        self._stages = stages_of(whole)
        self._sigma, self._noise = noise_sigma, Rng(seed, "service")
        self._on_decide = on_decide
        self._gpus = {gpu.id: gpu for gpu in gpus}
        self._pending: dict[str, Item] = {}
        self._tasks: dict[str, Task] = {}  # by each member's request
        self._events: list[tuple[float, int, Callable[..., None], tuple[object, ...]]] = []
        self._count = 0
        self._asked: set[float] = set()
        self._served: list[Served] = []
        self._pauses = self._loads = self._regroups = 0
        self._busy_s = 0.0

    def run(self) -> Summary:
        """Until every request has its result."""
        for index, arrival in enumerate(self._arrivals):
            self._at(arrival.at_s, self._arrive, str(index), arrival)
        while self._events:
            self.now = self._events[0][0]
            while self._events and self._events[0][0] <= self.now:
                _, _, event, args = heapq.heappop(self._events)
                event(*args)
            for order in self._policy.decide(self._view(), self.now):
                self._obey(order)
        return Summary(
            tuple(self._served), self.now, self._pauses, self._loads, self._regroups, len(self._pending), self._busy_s
        )

    def _at(self, when_s: float, event: Callable[..., None], *args: object) -> None:
        self._count += 1
        heapq.heappush(self._events, (when_s, self._count, event, args))

    def _view(self) -> View:
        tasks = {id(task): task for task in self._tasks.values()}.values()
        view = View(
            tuple(item.job for item in self._pending.values()),
            tuple(task.running(self.now) for task in tasks),
            tuple(gpu.instance() for gpu in self._gpus.values()),
        )
        if self._on_decide is not None:
            self._on_decide(view)
        return view

    # --- what happens -----------------------------------------------------------------------------------------

    def _arrive(self, name: str, arrival: Arrival) -> None:
        item = Item(name, arrival, int(name), tuple(self._stages))
        self._queue(item)

    def _queue(self, item: Item) -> None:
        item.refresh()
        self._pending[item.name] = item

    def _ended(self, task: Task, version: int) -> None:
        if task.version != version:
            return
        self._let_go(task)
        for item in task.items:
            item.held_by = task.gpus[0].id
            item.at += 1
            item.left = None
            if item.at < len(item.stages):
                self._queue(item)
            else:
                arrival = item.arrival
                self._served.append(
                    Served(
                        arrival.model, arrival.shape, arrival.video, arrival.at_s, self.now, arrival.due_s, item.pauses
                    )
                )

    def _let_go(self, task: Task) -> None:
        task.version += 1
        for gpu in task.gpus:
            gpu.task = None
            self._busy_s += gpu.count * (self.now - task.since_s)
        for item in task.items:
            del self._tasks[item.name]

    def _paused(self, task: Task, version: int) -> None:
        if task.version != version:
            return
        left = task.left(self.now)
        self._let_go(task)
        for item in task.items:
            item.left, item.held_by = left, task.gpus[0].id
            item.pauses += 1
            self._pauses += 1
            self._queue(item)

    def _regrouped(self, task: Task, version: int, degree: int, gpus: tuple[Gpu, ...]) -> None:
        if task.version != version:
            return
        left = task.left(self.now)
        for gpu in task.gpus:
            gpu.task = None
            self._busy_s += gpu.count * (self.now - task.since_s)
        task.gpus, task.degree, task.pausing = gpus, degree, False
        for gpu in gpus:
            gpu.task = task
        self._regroups += 1
        self._go(task, left, self._laws.profiles.costs.regroup_s)

    def _loaded(self, gpu: Gpu, role: Role) -> None:
        gpu.loading = None
        gpu.residents = gpu.residents | {role}

    def _wake(self) -> None:
        self._asked.discard(self.now)

    # --- what is ordered --------------------------------------------------------------------------------------

    def _obey(self, order: Order) -> None:
        match order:
            case Start():
                self._start(order)
            case Pause(request=request):
                task = self._tasks.get(request)
                if task is not None and not task.pausing and task.boundary_s(self.now) < task.end_s:
                    self._at_boundary(task, self._paused)
            case SetDegree():
                self._regroup(order)
            case Load():
                self._load(order)
            case AskAgain(at_s=at_s):
                if at_s > self.now and at_s not in self._asked:
                    self._asked.add(at_s)
                    self._at(at_s, self._wake)

    def _at_boundary(self, task: Task, event: Callable[..., None], *args: object) -> None:
        task.pausing = True
        task.version += 1
        self._at(task.boundary_s(self.now), event, task, task.version, *args)

    def _start(self, order: Start) -> None:
        items = [self._pending.get(name) for name in order.requests]
        lead = self._gpus[order.worker]
        group = (lead, *(self._gpus[name] for name in order.peers))
        found = [item for item in items if item is not None]
        if len(found) < len(items) or not self._fits(found, group, order.degree):
            return
        for item in found:
            del self._pending[item.name]
        task = Task(tuple(found), group, order.degree)
        for gpu in group:
            gpu.task = task
        for item in found:
            self._tasks[item.name] = task
        task.noise = math.exp(self._sigma * self._noise.normal()) if self._sigma else 1.0
        setup = max(self._laws.resume_s(item.job, lead.id) for item in found)
        self._go(task, found[0].job.left, setup)

    def _fits(self, items: Sequence[Item], group: Sequence[Gpu], degree: int) -> bool:
        """Whether the orders suit the fleet as it is: idle GPUs of one node with the weights, and members that match."""
        role = items[0].job.role
        same = all(item.job.role == role and item.job.left == items[0].job.left for item in items)
        idle = all(gpu.idle and role in gpu.residents for gpu in group)
        joined = len(group) == 1 or (all(gpu.joins for gpu in group) and len({gpu.node for gpu in group}) == 1)
        own = degree == (len(group) if len(group) > 1 else group[0].count)
        split = degree == 1 or role.stage in {DENOISE, WHOLE}
        return same and idle and joined and (own or (len(group) == 1 and degree == 1)) and split

    def _go(self, task: Task, left: int, setup_s: float) -> None:
        """Compute so many steps, after ``setup_s``."""
        lead, job = task.gpus[0], task.items[0].job
        step = self._laws.step_s(job.role, lead.accelerator, job.shape, len(task.items), task.degree) or 0.0
        task.begin(self.now, setup_s, left, step * task.noise)
        self._at(task.end_s, self._ended, task, task.version)

    def _regroup(self, order: SetDegree) -> None:
        task = self._tasks.get(order.request)
        if task is None or task.pausing:
            return
        group = (task.gpus[0], *(self._gpus[name] for name in order.peers))
        role = task.items[0].job.role
        new = [gpu for gpu in group if gpu not in task.gpus]
        fits = all(gpu.idle and role in gpu.residents and gpu.node == group[0].node and gpu.joins for gpu in new)
        if not fits or order.degree != len(group) or task.boundary_s(self.now) >= task.end_s:
            return
        for gpu in new:
            gpu.task = task  # kept free for it until the boundary
        self._at_boundary(task, self._regrouped, order.degree, group)

    def _load(self, order: Load) -> None:
        gpu = self._gpus[order.worker]
        if not gpu.idle or order.role in gpu.residents:
            return
        gpu.residents = gpu.residents - set(order.drop)
        held = sum(self._laws.weights_gib(role) for role in gpu.residents)
        if held + self._laws.weights_gib(order.role) > gpu.memory_gib:
            return
        gpu.loading = order.role
        self._loads += 1
        self._at(self.now + self._laws.load_s(order.role, gpu.accelerator), self._loaded, gpu, order.role)
