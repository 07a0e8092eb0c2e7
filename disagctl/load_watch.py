"""What the control loop and the status view see of the work: who is busy, how long things take, what is promised and kept.

Fed by the engine's and the desk's events; every history is bounded. Reading it changes nothing but what the loop is told.
"""

import math
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable
from typing import Final

from disagctl.engine import Engine
from disagctl.roster import WorkerState
from disagctl.watcher import Watcher
from planner.domain import Role, Shape, TaskRef
from planner.run.book import Request
from planner.run.observe import Lapse, Observer, RoleState
from stages import protocol as wire

RECENT: Final = 256  # of each kind of duration
FINISHED: Final = 1_000  # latencies, for the objective
WINDOW_S: Final = 60.0
MOST_CLASSES: Final = 64  # those seen last
SAMPLES: Final = 13  # of work done, over the window


class Times:
    """Recent durations of a role. ``load_s`` from storage, ``unpark_s`` from the host's memory; ``switch_s``: both ends."""

    def __init__(self) -> None:
        self.load_s: deque[float] = deque(maxlen=RECENT)
        self.unpark_s: deque[float] = deque(maxlen=RECENT)
        self.switch_s: deque[float] = deque(maxlen=RECENT)
        self.fetch_s: deque[float] = deque(maxlen=RECENT)


class Kept:
    """Results of one model and shape."""

    def __init__(self) -> None:
        self.finished = 0
        self.latencies_s: deque[float] = deque(maxlen=RECENT)
        self.in_time: deque[bool] = deque(maxlen=RECENT)

    def add(self, latency_s: float, request: Request, now: float) -> None:
        """One more."""
        self.finished += 1
        self.latencies_s.append(latency_s)
        if request.due_s is not None:
            self.in_time.append(now <= request.due_s)


class LoadWatch(Watcher):
    """Takes notes. ``objective``: seconds that are promised for a request of a model and shape."""

    def __init__(self, engine: Engine, objective: Callable[[str, Shape | None], float | None]) -> None:
        self.engine, self.objective = engine, objective
        self.classes: OrderedDict[tuple[str, Shape], Kept] = OrderedDict()
        self.observer = Observer()
        self.times: defaultdict[Role, Times] = defaultdict(Times)
        self.switches = 0
        self._kept: defaultdict[str, deque[bool]] = defaultdict(lambda: deque(maxlen=FINISHED))
        self._open: dict[str, tuple[Role, float]] = {}  # worker → what it computes, since when
        self._done_s: defaultdict[Role, float] = defaultdict(float)
        self._worked_s: dict[str, float] = {}  # by worker
        self._shares: dict[
            str, tuple[float, float | None]
        ] = {}  # worker → worked by the last sample, smoothed share since
        self._samples: deque[tuple[float, dict[Role, float], dict[Role, int]]] = deque(maxlen=SAMPLES)

    # --- events -----------------------------------------------------------------------------------------------

    def arrived(self, request: Request, now: float) -> None:
        """A request was accepted."""
        if request.shape is not None:
            self.observer.arrived(request.model, request.shape, now)

    def due_s(self, model: str, shape: Shape | None, accepted_s: float) -> float | None:
        """By the model's or the shape's objective."""
        seconds = self.objective(model, shape)
        return None if seconds is None else accepted_s + seconds

    def assigned(self, request: Request, role: Role) -> None:
        """A task was given to a worker."""
        if request.shape is not None:
            self.observer.assigned(role, request.shape)

    def started(self, worker: WorkerState, request: Request, ref: TaskRef, now: float) -> None:
        """A worker has begun to compute."""
        self._open[worker.id] = (Role(request.model, ref.stage), now)

    def completed(self, worker: WorkerState, request: Request, done: wire.Done) -> None:
        """A stage of a request was computed."""
        role = request.roles[request.stages.index(done.ref.stage)]
        if self._open.get(worker.id, (None, 0.0))[0] == role:
            del self._open[worker.id]
        self._done_s[role] += done.seconds
        self._worked_s[worker.id] = self._worked_s.get(worker.id, 0.0) + done.seconds
        if done.fetch_s:
            self.times[role].fetch_s.append(done.fetch_s)
        if request.shape is not None:
            gpu = self.engine.roster.accelerator(worker.node)
            self.observer.completed(role, gpu, request.shape, done.seconds, first=worker.done == 0)

    def idle(self, worker: str) -> None:
        """What a worker computed failed, or went with it."""
        self._open.pop(worker, None)

    def finished(self, request: Request, latency_s: float, now: float) -> None:
        """A request has its durable result."""
        if request.shape is not None:
            self.observer.finished(request.model, request.shape, latency_s, now)
            self._class(request.model, request.shape).add(latency_s, request, now)
        if request.due_s is not None:
            self._kept[request.model].append(now <= request.due_s)

    def became(self, worker: WorkerState, ready: wire.RoleReady, drain_s: float | None) -> None:
        """A worker has loaded its role."""
        gpu, times = self.engine.roster.accelerator(worker.node), self.times[ready.role]
        (times.unpark_s if ready.warm else times.load_s).append(ready.load_s)
        self.observer.lapse(Lapse("load", ready.load_s, ready.role, gpu, warm=ready.warm))
        if drain_s is not None:
            self.switches += 1
            times.switch_s.append(drain_s + ready.load_s)
            self.observer.lapse(Lapse("drain", drain_s, worker.left, gpu))

    # --- looks ------------------------------------------------------------------------------------------------

    def roles(self) -> tuple[RoleState, ...]:
        """Workers and work of every role, now."""
        ledger, roster = self.engine.ledger, self.engine.roster
        ready, computing, coming, draining = (defaultdict[Role, int](int) for _ in range(4))
        for worker in roster.workers.values():
            takes = ledger.takes(worker.id)
            if takes is not None:
                ready[takes] += 1
                computing[takes] += worker.id in self._open
            elif (known := ledger.workers.get(worker.id)) is not None and known.leases:
                draining[known.role] += 1
            if worker.role is not None and takes != worker.role and worker.id not in roster.draining:
                coming[worker.role] += not (worker.fatal or worker.doomed)
        for plan in roster.unfilled():
            coming[plan.role] += 1
        return tuple(
            RoleState(
                role, wanted, ready[role], computing[role], coming[role], draining[role],
                ledger.queued(role), sum(1 for _ in ledger.leased(role)),
            )
            for role, wanted in roster.wanted.items()
        )  # fmt: skip

    def sample(self, roles: Iterable[RoleState], now: float) -> None:
        """Note how much has been computed until now, once in a while."""
        if not self._samples or now - self._samples[-1][0] >= WINDOW_S / (SAMPLES - 1):
            since_s = now - self._samples[-1][0] if self._samples else 0.0
            self._samples.append((now, self._busy_s(now), {state.role: state.ready for state in roles}))
            self._sample_workers(now, since_s)

    def _sample_workers(self, now: float, since_s: float) -> None:
        """How busy each worker was since the last sample, smoothed over the window. Those that are gone are forgotten."""
        workers = self.engine.roster.workers
        self._worked_s = {worker: done for worker, done in self._worked_s.items() if worker in workers}
        before, self._shares = self._shares, {}
        gain = 1 - math.exp(-since_s / WINDOW_S)
        for worker in workers:
            total = self._worked_s.get(worker, 0.0)
            if worker in self._open:
                total += now - self._open[worker][1]
            last, smooth = before.get(worker, (total, None))
            if worker in before and since_s > 0:
                share = min(max((total - last) / since_s, 0.0), 1.0)
                smooth = share if smooth is None else smooth + gain * (share - smooth)
            self._shares[worker] = (total, smooth)

    def worker_utilisation(self, worker: str) -> float | None:
        """Fraction of the last minute or so that it computed; None: not known yet."""
        return self._shares.get(worker, (0.0, None))[1]

    def utilisation(self, role: Role, now: float) -> float | None:
        """Fraction of the time of its workers that a role computed, over the last minute; None: not known yet."""
        past = [sample for sample in self._samples if now - sample[0] <= WINDOW_S]
        if not past or now <= past[0][0]:
            return None
        begun_s, before, _ = past[0]
        workers = sum(ready.get(role, 0) for _, _, ready in past) / len(past)
        if workers <= 0:
            return None
        return min(
            1.0, max(0.0, self._busy_s(now).get(role, 0.0) - before.get(role, 0.0)) / ((now - begun_s) * workers)
        )

    def attainment(self, model: str) -> float | None:
        """Fraction of the last results that came within the model's objective."""
        kept = self._kept.get(model)
        return sum(kept) / len(kept) if kept else None

    def _class(self, model: str, shape: Shape) -> Kept:
        kept = self.classes.get((model, shape))
        if kept is None:
            kept = self.classes[model, shape] = Kept()
            if len(self.classes) > MOST_CLASSES:
                self.classes.popitem(last=False)
        else:
            self.classes.move_to_end((model, shape))
        return kept

    def _busy_s(self, now: float) -> dict[Role, float]:
        """Seconds computed since the start, by role."""
        busy = dict(self._done_s)
        for role, since in self._open.values():
            busy[role] = busy.get(role, 0.0) + now - since
        return busy


def mean(values: Iterable[float]) -> float | None:
    """The mean; None of nothing."""
    found = list(values)
    return sum(found) / len(found) if found else None
