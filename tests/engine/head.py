"""The head of the simulated world: the real engine, ledger and roster behind a pretended hub, desk and store."""

from collections import Counter as Tally
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from disagctl.engine import Engine
from disagctl.roster import Roster
from planner.domain import Role, Shape, TaskRef
from planner.run import effects as fx
from planner.run.book import Limits, Request
from planner.run.ledger import Ledger
from planner.run.orders import Job, Times
from planner.run.policies import make
from stages.link import SEQ_BYTES, Counter, frames_of
from stages.protocol import AgentMessage, AgentOrder, Artifact, HeadMessage, ModelSource, Who, Wishes, WorkerMessage
from tests.engine.pipeline import ENCODER
from tests.engine.rules import check_book, check_wishes

if TYPE_CHECKING:
    from tests.engine.world import World

DECODER = msgspec.msgpack.Decoder(list[WorkerMessage | AgentMessage])
TICK_S = 0.25
GRACE_S = 5.0
STALL_S = 25.0  # more than any step takes, less than the play lasts
RECONCILE_S = 2.0


class Row(msgspec.Struct):
    """What the store knows of a request."""

    id: str
    priority: int
    early: bool = False
    patience_s: float = 10.0
    state: str = "open"
    code: str = ""
    attempts: int = 0
    evidence: tuple[fx.Attempt, ...] = ()
    content: bytes | None = None
    endings: int = 0


class Guesses(Times):
    """What a dispatch policy believes of times: about right for a stage, and a second for anything else."""

    def step_s(self, role: Role, accelerator: str, shape: Shape, batch: int = 1, degree: int = 1) -> float | None:
        return 0.3 * batch

    def stage_s(self, role: Role, accelerator: str, shape: Shape, degree: int = 1) -> float | None:
        return 0.5

    def own_step_s(self, role: Role, accelerator: str, shape: Shape, degree: int) -> float | None:
        return None

    def resume_s(self, job: Job, worker: str) -> float:
        return 0.0 if job.held_by == worker else 0.1

    def load_s(self, role: Role, accelerator: str) -> float:
        return 1.0

    def weights_gib(self, role: Role) -> float:
        return 1.0

    def active_gib(self, role: Role, shape: Shape, batch: int = 1, degree: int = 1) -> float:
        return 1.0


class Store:
    """Durable: it outlives heads. ``write`` commits after a while, in order; a head that dies before has not written."""

    def __init__(self, world: "World") -> None:
        self.world = world
        self.rows: dict[str, Row] = {}
        self.files: dict[str, bytes] = {}
        self.incarnation = 0
        self.writes = 0
        self._free_s = 0.0

    def write(self, head: "Head", change: Callable[[], None], then: Callable[[], None]) -> None:
        clockwork = self.world.clockwork
        self._free_s = max(self._free_s, clockwork.now) + clockwork.rng.uniform(0.001, 0.01)

        def commit() -> None:
            if not head.alive:
                return
            if head.asleep:
                clockwork.after(0.5, commit)
                return
            self.writes += 1
            if self.world.crash_at == (self.writes, "before"):
                self.world.crash_head()
                return
            change()
            if self.world.crash_at == (self.writes, "after"):
                self.world.crash_head()
                return
            then()
            head.turn_over()

        clockwork.at(self._free_s, commit)

    def finish(self, item: str, state: str, code: str, attempts: int, evidence: tuple[fx.Attempt, ...]) -> None:
        """Only an open row changes: the first ending stands."""
        row = self.rows[item]
        row.endings += 1
        if row.state == "open":
            row.state, row.code, row.attempts, row.evidence = state, code, attempts, evidence


class Head:
    """One incarnation of the head."""

    def __init__(self, world: "World", store: Store) -> None:
        self.world, self.store = world, store
        self.alive, self.asleep = True, False
        self.born_s = world.clockwork.now
        store.incarnation += 1
        self.ledger = Ledger(0, Limits(stall_s=STALL_S, batch=world.batch, batch_wait_s=world.batch_wait_s))
        if world.dispatch is not None:
            self.ledger.serve_by((world.dispatch, make(world.dispatch, Guesses())))
        self.roster = Roster(dict(world.wanted))
        source = ModelSource("m", "synthetic", options=b"%d" % world.version)
        sources = dict.fromkeys(world.wanted, source)
        self.roster.widths = {role: world.width for role in list(world.wanted)[1:2] if world.width > 1}
        self.engine = Engine(
            self.ledger, self.roster, 0, sources, 0 if world.synchronous else 2, lambda: world.clockwork.now
        )
        self.engine.sender, self.engine.desk = self, self
        self.uploads: dict[str, bytes] = {}
        self.events: Tally[str] = Tally()
        self._counters: dict[str, Counter] = {}
        self._outgoing: dict[str, list[HeadMessage | AgentOrder]] = {}
        self._begun: set[str] = set()  # before their rows were durable
        self._put_off: list[tuple[str, bytes]] = []
        self.engine.restart(store.incarnation, world.nodes)
        rows = [row for row in store.rows.values() if row.state == "open"]
        now = world.clockwork.now
        self.ledger.recover([self.request(row) for row in rows], now, GRACE_S if store.incarnation > 1 else 0.0)
        self._tick()
        self._reconcile()

    def request(self, row: Row) -> Request:
        now = self.world.clockwork.now
        return Request(
            row.id,
            "m",
            self.world.stages,
            row.id.encode(),
            0,
            now,
            priority=row.priority,
            due_s=now + row.patience_s,
            alike="" if self.world.batch == 1 else "ab"[len(row.id) % 2],
        )

    def accept(self, row: Row, accepted: Callable[[], None]) -> None:
        """Every second one as those with an Idempotency-Key, the others are dispatched while their row is written."""

        def change() -> None:
            self.store.rows.setdefault(row.id, row)

        def then() -> None:
            accepted()
            if row.id not in self._begun:
                self._submit(row)

        if row.early and row.id not in self.store.rows and row.id not in self._begun:
            self._begun.add(row.id)
            self._submit(row)
        self.store.write(self, change, then)

    def _submit(self, row: Row) -> None:
        if row.id not in self.ledger.requests and row.state == "open":
            self.ledger.submit(self.request(row))
            self.engine.act()

    def cancel(self, item: str) -> None:
        self.ledger.cancel(item)
        self.engine.act()
        self.turn_over()

    def scale(self) -> None:
        """The wanted counts have changed."""
        self.roster.wanted = dict(self.world.wanted)
        self.engine.rewish()
        self.turn_over()

    def wake(self) -> None:
        self.asleep = False
        frames, self._put_off = self._put_off, []
        if self.alive:
            for peer, frame in frames:
                self.receive(peer, frame)

    # --- the hub ---

    def send(self, peer: str, message: HeadMessage | AgentOrder) -> None:
        if isinstance(message, Wishes):
            planned = {plan.slot for plan in self.roster.plans if plan.node == peer}
            check_wishes(message, planned, {w.slot for w in self.roster.workers.values() if w.node == peer})
        self._outgoing.setdefault(peer, []).append(message)

    def receive(self, peer: str, frame: bytes) -> None:
        if self.asleep:
            self._put_off.append((peer, frame))
            return
        if peer.partition(".")[0] not in self.world.nodes:
            return  # its key is no longer on the list
        follows = self._counters.setdefault(peer, Counter()).check(memoryview(frame))
        if not follows:
            self.send(peer, Who())
        self.engine.receive(peer, DECODER.decode(frame[SEQ_BYTES:]))
        self.turn_over()

    def turn_over(self) -> None:
        self.engine.turn_over()
        outgoing, self._outgoing = self._outgoing, {}
        for peer, messages in outgoing.items():
            channel = self.world.from_head.get(peer)
            counter = self._counters.setdefault(peer, Counter())
            for data in frames_of(messages, ENCODER):
                stamped = counter.stamp() + data
                if channel is not None:
                    channel.send(stamped)

    def _tick(self) -> None:
        if not self.alive:
            return
        if not self.asleep:
            self.engine.tick()
            self.turn_over()
            check_book(self.ledger)
            self.world.watch(self)
        self.world.clockwork.after(TICK_S, self._tick)

    def _reconcile(self) -> None:
        """As disagctl.nodes: notice machines that are gone, and see that there are enough."""
        if not self.alive:
            return
        if not self.asleep:
            for node in self.world.reconcile():
                for worker in self.roster.node_lost(node):
                    self.ledger.worker_lost(worker, f"node {node} is lost")
                self.engine.rewish()
                self.engine.act()
                self.turn_over()
        self.world.clockwork.after(RECONCILE_S, self._reconcile)

    # --- the desk ---

    def publish(self, effect: fx.Publish) -> None:
        delay = self.world.clockwork.rng.uniform(0.0, 0.05)
        self.world.clockwork.after(delay, lambda: self._publish(effect))

    def _publish(self, effect: fx.Publish) -> None:
        if not self.alive:
            return
        artifact, item, key = effect.artifact, effect.ref.request, effect.ref.key
        assert isinstance(artifact, Artifact)
        if key in self.uploads:
            self.store.files[item] = self.uploads.pop(key)  # the rename: durable before the row is
        content = artifact.data or self.store.files.get(item)
        if content is None:
            self.ledger.publish_failed(item, "the file was not uploaded")
            self.engine.act()
            self.turn_over()
            return

        def change() -> None:
            self.store.finish(item, "succeeded", "", effect.attempts, ())
            self.store.rows[item].content = content

        self.store.write(self, change, lambda: self._published(item))

    def _published(self, item: str) -> None:
        self.ledger.published(item)
        self.engine.act()

    def finish(self, effect: fx.Finish) -> None:
        def change() -> None:
            self.store.finish(effect.request, effect.outcome, effect.code, effect.attempts, effect.evidence)

        self.store.write(self, change, lambda: None)

    def progress(self, request: str) -> None:
        assert request in self.store.rows or self.ledger.requests[request].submitted_s > self.born_s

    def event(self, kind: str, why: str) -> None:
        self.events[kind] += 1
        self.world.say(f"event {kind}: {why}")

    def discard_upload(self, ref: TaskRef) -> None:
        self.uploads.pop(ref.key, None)
