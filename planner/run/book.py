"""The ledger's book: unfinished requests, live workers, who waits, who has what; and the moves that keep them consistent.

:class:`planner.run.ledger.Ledger` puts the events on top. Split in two because these moves change together, and the
events change with the protocol.
"""

import heapq
import math
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from planner.domain import Batch, Role, Shape, TaskRef
from planner.run.dispatch import Pool, Waiting, Worker
from planner.run.effects import Assign, Attempt, CancelTask, Effect, Finish, Release

EPOCHS_PER_HEAD: Final = 1 << 32
LAST_WORDS: Final = 500  # characters kept of an error message


class Limits(msgspec.Struct, frozen=True):
    """Bounds of the ledger. Seconds are monotonic."""

    max_attempts: int = 3
    max_losses: int = 10  # times a task may be lost before its compute was seen to begin
    lease_s: float = 5.0
    stall_s: float = 1800.0  # a worker whose task neither starts nor moves for this long is condemned
    steal_after_s: float = 0.5  # a task waiting behind another for this long may move to an idle worker
    transit_s: float = 1.0  # so long a task may be on its way to a worker that does not know of it yet
    max_pauses: int = 8  # of a request; then it runs to its end
    min_window: int = 4  # finished outputs that may wait in front of a stage, at least
    batch: int = 1  # tasks that a worker may compute at once
    batch_wait_s: float = 0.0  # so long a task may wait for others while a worker idles


class Output(msgspec.Struct, frozen=True):
    """A finished stage's output, held by a worker. ``handle`` is the transport's business."""

    worker: str
    ref: TaskRef
    handle: Any


class Snapshot(Output, frozen=True):
    """A stage paused after ``step`` steps, which took ``seconds``."""

    step: int
    seconds: float


class Lease(msgspec.Struct):
    """A task out with a worker. ``pausing``: it was told to stop it between two steps."""

    ref: TaskRef
    worker: str
    assigned_s: float
    touched_s: float
    started: bool = False
    pausing: bool = False
    batch: Batch | None = None
    degree: int = 0  # GPUs of the worker's; 0: all
    stepped_s: float = 0.0  # when it last told of a step
    settling: int = 1  # words of steps until it is known that one was computed on all of these GPUs and no others


class Request(msgspec.Struct):
    """An accepted request that is not finished."""

    id: str
    model: str
    stages: tuple[str, ...]
    payload: bytes
    seq: int
    submitted_s: float
    input: Any = None
    shape: Shape | None = None  # what it asks for, as the control loop counts it
    priority: int = 0
    deadline_s: float | None = None  # monotonic: not finished by then, it fails
    due_s: float | None = None  # monotonic: by then it should be finished; late, it is of use all the same
    at: int = 0
    lease: Lease | None = None
    outputs: dict[int, Output] = msgspec.field(default_factory=dict)
    evidence: list[Attempt] = msgspec.field(default_factory=list)
    blamed: set[str] = msgspec.field(default_factory=set)
    charged: set[int] = msgspec.field(default_factory=set)  # epochs in evidence: a worker given up may come back
    fenced: set[int] = msgspec.field(default_factory=set)  # epochs a worker was told to forget: never adopted again
    alike: str = ""  # requests of a stage may share a batch with those that have the same; "": with none
    alone: bool = False  # a batch with it took its worker down: it shares none any more
    waiting_s: float | None = None  # since when it is first in line
    losses: int = 0  # since it last got further than ever before
    furthest: int = 0
    publishing: TaskRef | None = None
    started_s: float | None = None
    step: int = 0
    steps: int = 0
    roles: tuple[Role, ...] = ()  # of its stages, filled in when it is taken up
    snapshot: Snapshot | None = None  # of the stage that it is at, or will be
    pauses: int = 0

    @property
    def resumable(self) -> Snapshot | None:
        """The snapshot of the stage that it is at."""
        return self.snapshot if self.snapshot is not None and self.snapshot.ref.stage == self.stages[self.at] else None

    @property
    def ready(self) -> bool:
        """Whether there is what its stage needs to begin, or to go on."""
        return self.at == 0 or self.at - 1 in self.outputs or self.resumable is not None

    @property
    def role(self) -> Role:
        """The role that the request needs next, or is with."""
        return self.roles[self.at] if self.roles else Role(self.model, self.stages[self.at])

    @property
    def sociable(self) -> bool:
        """Whether it may share a batch: what has failed is tried by itself, and what was paused goes on by itself."""
        return bool(self.alike) and not self.alone and not self.evidence and self.resumable is None


class Book:
    """All unfinished requests and all live workers. Methods with an underscore are for :class:`Ledger` alone."""

    def __init__(self, incarnation: int, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self.requests: dict[str, Request] = {}
        self.workers: dict[str, Worker] = {}
        self.fenced = 0
        self.redelivered = 0
        self.pauses = 0
        self._epoch = incarnation * EPOCHS_PER_HEAD
        self._seq = 0
        self._waiting: dict[Role, Waiting] = {}
        self._pools: dict[Role, Pool] = {}
        self._known: dict[Role, Role] = {}
        self._before: dict[Role, Role] = {}
        self._roles: dict[tuple[str, tuple[str, ...]], tuple[Role, ...]] = {}  # of every line of stages that was seen
        self._dirty: dict[Role, None] = {}
        self._out: list[Effect] = []
        self._on_hold: dict[str, None] = {}
        self._hold_until_s: float | None = None
        self._last_tick_s: float | None = None
        self._deadlines: list[tuple[float, str]] = []
        self.look_again_s: float | None = None  # when a task has waited long enough for others

    def begin(self, incarnation: int) -> None:
        """Give out epochs above those of all earlier incarnations."""
        self._epoch = incarnation * EPOCHS_PER_HEAD

    def queued(self, role: Role) -> int:
        """Requests waiting for the role."""
        waiting = self._waiting.get(role)
        return len(waiting) if waiting is not None else 0

    def idle(self, worker: str) -> bool:
        """Whether the worker is known, and has no tasks."""
        known = self.workers.get(worker)
        return known is not None and not known.leases

    def leased(self, role: Role) -> Iterator[Lease]:
        """Tasks out with workers of the role."""
        for worker in self.workers.values():
            if worker.role == role:
                yield from self._leases(worker)

    def _leases(self, worker: Worker) -> Iterator[Lease]:
        for request_id in worker.leases:
            lease = self.requests[request_id].lease
            if lease is not None:
                yield lease

    def _adopt(self, request: Request) -> None:
        self._seq += 1
        request.seq = self._seq
        self.requests[request.id] = request
        if request.deadline_s is not None:
            heapq.heappush(self._deadlines, (request.deadline_s, request.id))
        roles = self._roles.get((request.model, request.stages))
        if roles is None:
            roles = tuple(self._one(Role(request.model, stage)) for stage in request.stages)
            self._roles[request.model, request.stages] = roles
            self._before.update(zip(roles[1:], roles, strict=False))
        request.roles = roles

    def _one(self, role: Role) -> Role:
        """One object for equal roles: they are looked up for every message, and identity is asked before equality."""
        return self._known.setdefault(role, role)

    def _pool(self, role: Role) -> Pool:
        pool = self._pools.get(role)
        if pool is None:
            pool = self._pools[role] = Pool()
        return pool

    def _enqueue(self, request: Request) -> None:
        if self._on_hold and request.id in self._on_hold:
            return  # whoever has it may yet report
        role = request.role
        waiting = self._waiting.get(role)
        if waiting is None:
            waiting = self._waiting[role] = Waiting()
        waiting.push(request.id, request.priority, request.seq)
        self._dirty[role] = None

    def _blocked(self, request: Request) -> bool:
        """Whether enough outputs wait, or are being made, for the stage after this one: a slow stage slows those before.

        Enough is never less than a task for each of this stage's workers and an output for each of the next's: a few quick
        ones after many slow ones must not idle them.
        """
        return self._pool(request.role).total_load >= self._room(request)

    def _room(self, request: Request) -> float:
        """How many tasks may be out with this stage's workers."""
        if request.at + 1 >= len(request.roles):
            return math.inf
        after = request.roles[request.at + 1]
        pool, ahead = self._pool(request.role), self._pool(after)
        most = max(self.limits.min_window, 2 * ahead.total_slots, pool.workers + ahead.workers)
        return most - self.queued(after)

    def _dispatch(self, role: Role, now: float) -> None:
        waiting, pool = self._waiting.get(role), self._pool(role)
        room, roles, sent, batches = 0.0, None, False, self.limits.batch > 1
        while waiting:
            request_id = waiting.pop()
            request = self.requests.get(request_id) if request_id is not None else None
            if request is None:
                continue
            if request.roles is not roles:  # in one turn nothing but the load of ``pool`` changes it
                room, roles = self._room(request), request.roles
            worker = None if pool.total_load >= room else pool.pick(request.blamed)
            if worker is None or (batches and self._waits(request, worker, len(waiting) + 1, now)):
                waiting.push(request.id, request.priority, request.seq)
                break
            self._assign(request, worker, now, self._shared(request) if batches else None)
            sent = True
        before = self._before.get(role)
        if sent and before is not None and self.queued(before):
            self._dirty[before] = None

    def _waits(self, request: Request, worker: Worker, line: int, now: float) -> bool:
        """Whether it is worth while to leave a worker idle for a moment: until there is a batch, or time is up."""
        wait_s = self.limits.batch_wait_s
        if not wait_s or not request.sociable or worker.leases or line >= self.limits.batch:
            return False
        if request.waiting_s is None:
            request.waiting_s = now
        due = request.waiting_s + wait_s
        if now >= due:
            return False
        self.look_again_s = due if self.look_again_s is None else min(due, self.look_again_s)
        return True

    def _shared(self, request: Request) -> Batch | None:
        """The batch that the request may share with those that wait as it does."""
        return Batch(request.alike, self.limits.batch) if self.limits.batch > 1 and request.sociable else None

    def _assign(
        self, request: Request, worker: Worker, now: float, batch: Batch | None = None, degree: int = 0
    ) -> None:
        self._epoch += 1
        ref = TaskRef(request.id, request.stages[request.at], self._epoch)
        request.lease, request.waiting_s = Lease(ref, worker.id, now, now, batch=batch, degree=degree), None
        worker.leases[request.id] = ref.epoch
        self._pool(worker.role).place(worker)
        attempt, snapshot = len(request.evidence) + 1, request.resumable if request.snapshot is not None else None
        if snapshot is not None:
            source, at, spent = snapshot.handle, snapshot.step, snapshot.seconds
        else:
            source = request.input if request.at == 0 else request.outputs[request.at - 1].handle
            at, spent = 0, 0.0
        self._out.append(
            Assign(worker.id, ref, request.model, attempt, request.payload, source, at, spent, batch, degree)
        )

    def _current(self, worker_id: str, ref: TaskRef) -> Request | None:
        request = self.requests.get(ref.request)
        if request is None or request.lease is None or request.lease.ref != ref or request.lease.worker != worker_id:
            return None
        return request

    def _unlease(self, request: Request) -> Worker | None:
        lease, request.lease = request.lease, None
        worker = self.workers.get(lease.worker) if lease else None
        if worker is not None:
            worker.leases.pop(request.id, None)
            self._pool(worker.role).place(worker)
            self._dirty[worker.role] = None
        return worker

    def _revoke(self, request: Request) -> None:
        """Take the lease away from a worker that may go on with it or has yet to hear of it."""
        if request.lease is not None:
            self._refuse(request.lease.worker, request.lease.ref)
            self._unlease(request)

    def _refuse(self, worker_id: str, ref: TaskRef) -> None:
        """Have the worker forget a task. What it says of it until it hears of that is not to be believed any more."""
        self._fence(ref)
        self._out.append(CancelTask(worker_id, ref))

    def _drop(self, worker_id: str, ref: TaskRef) -> None:
        """Have the worker forget an output."""
        self._fence(ref)
        self._out.append(Release(worker_id, ref.key))

    def _fence(self, ref: TaskRef) -> None:
        request = self.requests.get(ref.request)
        if request is not None:
            request.fenced.add(ref.epoch)

    def _release(self, output: Output) -> None:
        self._fence(output.ref)
        self._let_go(output)

    def _let_go(self, output: Output) -> None:
        worker = self.workers.get(output.worker)
        if worker is not None:
            key = output.ref.key
            worker.outputs.pop(key, None)
            self._out.append(Release(output.worker, key))

    def _drop_snapshot(self, request: Request) -> None:
        """It is of no use any more."""
        if request.snapshot is not None:
            self._release(request.snapshot)
            request.snapshot = None

    def _discard_waiting(self, request: Request) -> None:
        waiting = self._waiting.get(request.role)
        if waiting is not None:
            waiting.discard(request.id)

    def _output_gone(self, request_id: str, key: str) -> None:
        request = self.requests.get(request_id)
        if request is None:
            return
        if request.snapshot is not None and request.snapshot.ref.key == key:
            request.snapshot = None
        for index, output in list(request.outputs.items()):
            if output.ref.key == key and (request.publishing is None or index < request.at):
                del request.outputs[index]
        waiting = self._waiting.get(request.role)
        if waiting is not None and request.id in waiting:
            waiting.discard(request.id)
            self._rewind(request)

    def _rewind(self, request: Request) -> None:
        """Queue for the furthest stage whose input, or snapshot, still exists."""
        while not request.ready:
            request.at -= 1
        snapshot = request.resumable
        request.step, request.steps = (snapshot.step, request.steps) if snapshot is not None else (0, 0)
        self._enqueue(request)

    def _lease_lost(self, request: Request, lease: Lease, why: str, *, charged: bool, counts: bool = True) -> None:
        self.redelivered += 1
        self._unlease(request)
        if charged:
            self._charge(request, lease.worker, lease.ref, "worker_lost", why)
        elif counts:
            self._lose(request, lease.worker, lease.ref.stage, why)
        else:
            self._rewind(request)

    def _lose(self, request: Request, worker: str, stage: str, why: str) -> None:
        request.losses += 1
        if request.losses > self.limits.max_losses:
            request.evidence.append(Attempt(worker, stage, "lost", why[:LAST_WORDS]))
            self._finish(request, "failed", "dead_letter", f"lost {request.losses} times; last: {why[:LAST_WORDS]}")
        else:
            self._rewind(request)

    def _charge(self, request: Request, worker: str, ref: TaskRef, code: str, message: str) -> None:
        stage = ref.stage
        if ref.epoch not in request.charged:
            request.charged.add(ref.epoch)
            request.evidence.append(Attempt(worker, stage, code, message[:LAST_WORDS]))
        request.blamed.add(worker)
        if len(request.evidence) >= self.limits.max_attempts:
            text = f"{stage} failed on {len(request.evidence)} tries; last: {message[:LAST_WORDS]}"
            self._finish(request, "failed", "dead_letter", text)
        else:
            self._rewind(request)

    def _finish(self, request: Request, outcome: str, code: str, message: str, param: str | None = None) -> None:
        self._revoke(request)
        tries = len(request.evidence)
        self._out.append(Finish(request.id, outcome, code, message, tries, tuple(request.evidence), param))
        self._forget(request)

    def _forget(self, request: Request) -> None:
        self._discard_waiting(request)
        self._on_hold.pop(request.id, None)
        self.requests.pop(request.id, None)
        self._drop_snapshot(request)
        for output in request.outputs.values():
            self._let_go(output)  # nothing of it needs to be fenced any more
