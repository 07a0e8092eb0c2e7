"""A worker process of the simulated world: the real state machine, around a pretended pipeline."""

import hashlib
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from planner.domain import TaskRef
from stages import instructions as do
from stages.core import WorkerCore
from stages.link import SEQ_BYTES, Counter, frames_of
from stages.protocol import Artifact, HeadMessage, InlineRoute, Offer, Task, WorkerMessage, ZmqRoute
from tests.engine.clockwork import Channel

if TYPE_CHECKING:
    from tests.engine.world import World

ENCODER = msgspec.msgpack.Encoder()
DECODER = msgspec.msgpack.Decoder(list[HeadMessage])
FETCH_DEADLINE_S = 30.0
UPLOAD_DEADLINE_S = 60.0
MAIL_S = 0.001  # from the compute thread to the one that owns the state machine


def digest(stage: str, params: bytes, given: bytes) -> bytes:
    """What a stage makes of its input: whoever computes it, the same."""
    return hashlib.blake2b(stage.encode() + b"|" + params + b"|" + given, digest_size=16).digest()


class Proc:
    """One process. Everything that happens in it is lost when it dies and put off while it is stopped."""

    def __init__(self, world: "World", node: str, slot: str, worker: str, pid: int) -> None:
        self.world, self.node, self.slot, self.id = world, node, slot, worker
        self.alive, self.stopped = True, False
        self.loaded_s = float("inf")
        self.wedged = False  # stopped, though the agent sees it run
        self.stalled = False  # its compute thread hangs; its link lives
        self.core = WorkerCore(worker, node, pid, synchronous=world.synchronous)
        self.core.stop_beats = 20
        self.outbox: dict[str, bytes] = {}
        self.inputs: dict[str, bytes] = {}
        self.results: dict[str, bytes] = {}
        self.to_head: Channel | None = None
        self._counter = Counter()
        self._outgoing: list[WorkerMessage] = []
        self._put_off: list[Callable[[], None]] = []
        self._stop: set[TaskRef] = set()
        self._pause: set[TaskRef] = set()
        self._line: list[list[Task]] = []  # of the compute thread: groups that are computed at once
        self._seconds: dict[TaskRef, float] = {}
        self._sender_free_s = 0.0

    # --- the process ---

    def boot(self) -> None:
        self.to_head = self.world.connect(self.id, self.receive)
        self.perform(self.core.restate())
        self._flush()
        self._beat()

    def later(self, delay: float, call: Callable[[], None]) -> None:
        self.world.clockwork.after(delay, lambda: self._now(call))

    def _now(self, call: Callable[[], None]) -> None:
        if not self.alive:
            return
        if self.stopped:
            self._put_off.append(call)
            return
        call()
        self._flush()

    def die(self, code: int) -> None:
        if self.alive:
            self.alive = False
            self.world.died(self, code)

    def stop(self) -> None:
        self.stopped = True

    def go_on(self) -> None:
        self.stopped = False
        put_off, self._put_off = self._put_off, []
        for call in put_off:
            self._now(call)

    @property
    def computing(self) -> tuple[TaskRef, ...]:
        return tuple(task.ref for task in self._line[0]) if self._line else ()

    @property
    def empty(self) -> bool:
        return not (self.core.tasks or self.core.held or self.outbox or self.inputs or self.results)

    # --- the link ---

    def receive(self, frame: bytes) -> None:
        self._now(lambda: self._take(frame))

    def _take(self, frame: bytes) -> None:
        follows = self._counter.check(memoryview(frame))
        for message in DECODER.decode(frame[SEQ_BYTES:]):
            self.perform(self.core.message(message))
        self.perform(self.core.settle())
        if not follows:
            self.perform(self.core.gap())

    def _send(self, message: WorkerMessage) -> None:
        self._outgoing.append(message)

    def _flush(self) -> None:
        if self._outgoing and self.to_head is not None:
            outgoing, self._outgoing = self._outgoing, []
            for data in frames_of(outgoing, ENCODER):
                self.to_head.send(self._counter.stamp() + data)

    def _beat(self) -> None:
        self.perform(self.core.beat())
        self.later(1.0, self._beat)

    # --- the pipeline ---

    def perform(self, instructions: list[do.Instruction]) -> None:  # noqa: C901  # a table
        for instruction in instructions:
            match instruction:
                case do.Send(message=message):
                    self._send(message)
                case do.Compute(task=task, others=others):
                    self._line.append([task, *others])
                    if len(self._line) == 1:
                        self._begin()
                case do.Fetch(task=task):
                    self._fetch(task, self.world.clockwork.now + FETCH_DEADLINE_S)
                case do.Publish(ref=ref):
                    self._queue_publish(ref)
                case do.Stop(ref=ref):
                    self._stop.add(ref)
                case do.Suspend(ref=ref):
                    self._pause.add(ref)
                case do.Forget(key=key):
                    for place in (self.inputs, self.results, self.outbox):
                        place.pop(key, None)
                case do.Load():
                    self._load(instruction)
                case do.Unload() | do.AllowPeers():
                    pass

    def _load(self, order: do.Load) -> None:
        rng = self.world.clockwork.rng
        took = rng.uniform(0.3, 2.0)
        self.loaded_s = self.world.clockwork.now + took
        if self.world.faulty and rng.random() < 0.05:
            self.later(took, lambda: self.perform(self.core.load_failed(order.role, "no memory", fatal=False)))
        else:
            steps = order.role.stage == "denoise"
            self.later(took, lambda: self.perform(self.core.loaded(order.role, took, 0, preemptible=steps)))

    def _fetch(self, task: Task, deadline: float) -> None:
        assert task.input is not None
        route, ref, now = task.input.routes[0], task.ref, self.world.clockwork.now
        assert isinstance(route, ZmqRoute)
        producer = self.world.procs.get(route.endpoint)
        if producer is not None and producer.alive and producer.stopped and now < deadline:
            self.later(0.5, lambda: self._fetch(task, deadline))
            return
        torn = self.world.faulty and self.world.clockwork.rng.random() < 0.02
        if producer is None or not producer.alive or producer.stopped or torn or task.input.key not in producer.outbox:
            self.later(0.2, lambda: self.perform(self.core.fetch_failed(ref, "gone")))
            return
        content, took = producer.outbox[task.input.key], self.world.clockwork.rng.uniform(0.002, 0.1)

        def fetched() -> None:
            self.inputs[ref.key] = content
            self.perform(self.core.fetched(ref, took))

        self.later(took, fetched)

    def _begin(self) -> None:
        """The first in line, or rather the first that was not given up."""
        self._flush()
        group = self._line[0]
        self._leave(group)
        if not group:
            self._next()
        elif len(group) == 1:
            self._compute(group[0])
        else:
            self._compute_batch(group)

    def _leave(self, group: list[Task]) -> None:
        """Those that were given up."""
        for task in [task for task in group if task.ref in self._stop]:
            group.remove(task)
            self._stop.discard(task.ref)
            self._mail(lambda ref=task.ref: self.core.stopped(ref))  # type: ignore[misc]

    def _mail(self, completion: Callable[[], list[do.Instruction]]) -> None:
        self.later(MAIL_S, lambda: self.perform(completion()))

    def _pass_on(self, completion: Callable[[], list[do.Instruction]]) -> None:
        """The first in line is over: word of it is in the mail while the thread goes on with the next."""
        self._mail(completion)
        self._next()

    def _next(self) -> None:
        del self._line[0]
        if self._line:
            self._begin()

    def _compute_batch(self, group: list[Task]) -> None:
        stage = group[0].ref.stage
        seconds = self.world.seconds(stage, group[0].ref.request) * (0.8 + 0.2 * len(group))
        steps = 4 if stage == "denoise" else 1
        natures = {task.ref: self.world.nature(task.ref.request) for task in group}
        doomed = [task for task in group if natures[task.ref].fails_in == stage]
        doomed_at = self.world.clockwork.rng.randrange(steps) if doomed else -1
        self.world.batches.append((stage, len(group)))
        self._batch_step(group, doomed, seconds, steps, 0, doomed_at)

    def _batch_step(
        self, group: list[Task], doomed: list[Task], seconds: float, steps: int, done: int, doomed_at: int
    ) -> None:
        self._leave(group)
        if done < steps:
            self._leave_paused(group, done, steps, seconds)
        if not group:
            self._next()
            return
        failing = [task for task in doomed if task in group]
        if done == doomed_at and failing:
            if any(self.world.nature(task.ref.request).kind == "poison" for task in failing):
                self.later(0.0, lambda: self.die(-11))
            else:  # one by one, then
                self._line[:1] = [[task] for task in group]
                self._begin()
            return
        if done == steps:
            share = seconds / len(group)
            for task in group:
                self._computed(task.ref, digest(task.ref.stage, task.params, self._given(task)), share, self._mail)
            self._next()
            return
        if done:
            for task in group:
                self.perform(self.core.stepped(task.ref, done, steps))
        if not self.stalled:
            self.later(seconds / steps, lambda: self._batch_step(group, doomed, seconds, steps, done + 1, doomed_at))

    def _leave_paused(self, group: list[Task], done: int, steps: int, seconds: float) -> None:
        for task in [task for task in group if task.ref in self._pause]:
            self._pause.discard(task.ref)
            group.remove(task)
            if done:
                self.results[task.ref.key] = b"%d|%b" % (done, self._given(task))
                spent = seconds * done / steps / (len(group) + 1)
                self._mail(lambda ref=task.ref, s=spent: self.core.paused(ref, done, steps, s))  # type: ignore[misc]
            else:
                self._mail(lambda ref=task.ref: self.core.untouched(ref))  # type: ignore[misc]

    def _given(self, task: Task) -> bytes:
        if task.input is None:
            return b""
        route = task.input.routes[0]
        here = self.outbox.get(task.input.key, b"") if task.resumed_at else b""  # it was paused here
        return route.data if isinstance(route, InlineRoute) else self.inputs.pop(task.ref.key, here)

    def _compute(self, task: Task) -> None:
        nature, stage = self.world.nature(task.ref.request), task.ref.stage
        given = self._given(task)
        seconds = self.world.seconds(stage, task.ref.request)
        steps = 4 if stage == "denoise" else 1
        doomed_at = self.world.clockwork.rng.randrange(task.resumed_at, steps) if stage == nature.fails_in else -1
        if task.resumed_at:
            self.world.resumed += 1
            assert given.startswith(b"%d|" % task.resumed_at), f"{task.ref} is resumed from {given!r}"
            given = given.partition(b"|")[2]
        self._step(task, given, seconds, steps, task.resumed_at, doomed_at)

    def _step(self, task: Task, given: bytes, seconds: float, steps: int, done: int, doomed_at: int) -> None:
        ref = task.ref
        if ref in self._stop:
            self._stop.discard(ref)
            self._pass_on(lambda: self.core.stopped(ref))
            return
        if ref in self._pause and done < steps and self._paused(task, given, done, steps, seconds):
            return
        if done == doomed_at:
            self._fail(ref)
            return
        if done == steps:
            self._computed(ref, digest(ref.stage, task.params, given), seconds, self._pass_on)
            return
        if done:
            self.perform(self.core.stepped(ref, done, steps))
        if self.stalled:
            return
        self.later(seconds / steps, lambda: self._step(task, given, seconds, steps, done + 1, doomed_at))

    def _paused(self, task: Task, given: bytes, done: int, steps: int, seconds: float) -> bool:
        """Stop between two steps; False: there is no room for the snapshot."""
        ref = task.ref
        self._pause.discard(ref)
        if done == task.resumed_at:
            self._pass_on(lambda: self.core.untouched(ref))
        elif self.world.faulty and self.world.clockwork.rng.random() < 0.1:
            self.later(MAIL_S, lambda: self.perform(self.core.pause_refused(ref, "no room")))
            return False
        else:
            self.results[ref.key] = b"%d|%b" % (done, given)
            self._pass_on(lambda: self.core.paused(ref, done, steps, seconds * (done - task.resumed_at) / steps))
        return True

    def _fail(self, ref: TaskRef) -> None:
        match self.world.nature(ref.request).kind:
            case "poison":
                self.later(0.0, lambda: self.die(-11))
            case "bad":
                self._pass_on(
                    lambda: self.core.compute_failed(ref, "bad_request", "no such size", retry=False, param="size")
                )
            case _:
                self.world.recover_nature(ref.request)
                self._pass_on(lambda: self.core.compute_failed(ref, "RuntimeError", "out of memory", retry=True))

    def _computed(
        self, ref: TaskRef, content: bytes, seconds: float, tell: Callable[[Callable[[], list[do.Instruction]]], None]
    ) -> None:
        if self.world.nature(ref.request).small:
            made = self._made(ref, content)
            tell(lambda: self.core.published(ref, *made, seconds))
            return
        self.results[ref.key] = content
        tell(lambda: self.core.computed(ref, seconds))

    def _queue_publish(self, ref: TaskRef) -> None:
        now = self.world.clockwork.now
        self._sender_free_s = max(now, self._sender_free_s) + self.world.clockwork.rng.uniform(0.01, 0.3)
        deadline = now + UPLOAD_DEADLINE_S
        self.later(self._sender_free_s - now, lambda: self._publish(ref, deadline))

    def _publish(self, ref: TaskRef, deadline: float) -> None:
        content = self.results.get(ref.key)
        if content is None:
            self.perform(self.core.stopped(ref))
            return
        head = self.world.head
        if ref.stage == "decode":
            if head is None or head.asleep:
                if self.world.clockwork.now > deadline:
                    self.perform(self.core.compute_failed(ref, "publish", "no head", retry=True))
                else:
                    self.later(0.5, lambda: self._publish(ref, deadline))
                return
            head.uploads[ref.key] = content
        del self.results[ref.key]
        held = self.core.tasks.get(ref)
        if held is not None and held.step and self.world.faulty and self.world.clockwork.rng.random() < 0.1:
            self.perform(self.core.compute_failed(ref, "publish", "no room", retry=True))
            return
        self.perform(self.core.published(ref, *self._made(ref, content), None))

    def _made(self, ref: TaskRef, content: bytes) -> tuple[Offer | None, Artifact | None]:
        small = self.world.nature(ref.request).small
        if ref.stage == "decode":
            return None, Artifact("image/png", len(content), 0, content if small else b"")
        self.outbox[ref.key] = content
        return Offer(ref.key, b"", (), (InlineRoute(content) if small else ZmqRoute(self.id, ""),)), None
