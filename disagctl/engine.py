"""Turns the hub's messages into ledger events, and the ledger's effects into messages and durable writes.

This is the interpreter of :mod:`planner.run.effects` for the real world. It decides nothing.
"""

import logging
import time
from collections.abc import Callable, Iterable
from typing import Final, Protocol

from disagctl.roster import GREET_S, HANG_S, Roster, WorkerState
from planner.domain import Role, TaskRef
from planner.run import effects as fx
from planner.run.ledger import Ledger
from stages import protocol as wire

log = logging.getLogger(__name__)

ROLE_RETRY_S: Final = 10.0
SILENCE_AGAIN_S: Final = 60.0
MAX_TOLD: Final = 10_000  # outputs that a peer may name ahead of its Hello


class Sender(Protocol):
    """The part of the hub that the engine needs."""

    def send(self, peer: str, message: wire.HeadMessage | wire.AgentOrder) -> None:
        """Queue a message."""


class Desk(Protocol):
    """What the engine reports to: it makes endings durable and tells those who wait."""

    def publish(self, effect: fx.Publish) -> None:
        """Make the result durable, then tell the ledger."""

    def finish(self, effect: fx.Finish) -> None:
        """Make the ending durable."""

    def progress(self, request: str) -> None:
        """The request has moved."""

    def event(self, kind: str, why: str) -> None:
        """Something happened that a person may want to know."""

    def discard_upload(self, ref: TaskRef) -> None:
        """A fenced result may have left an upload."""


class Engine:
    """One service's runtime. Runs on the event loop; ``now`` is monotonic."""

    def __init__(
        self,
        ledger: Ledger,
        roster: Roster,
        incarnation: int,
        sources: dict[str, wire.ModelSource],
        prefetch: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.ledger, self.roster, self.incarnation = ledger, roster, incarnation
        self.sources, self.prefetch, self.clock = sources, prefetch, clock
        self.peer_keys: tuple[str, ...] = ()
        self.sender: Sender
        self.desk: Desk
        self.durations: dict[Role, list[float]] = {}
        self._holding: dict[str, dict[TaskRef, wire.HeldOutput]] = {}  # told before the Hello that they belong to
        self._awake_s: float | None = None
        self._wishes_due = False
        self._wishes_of: dict[str, None] = {}  # nodes to be told, once everything of this turn is taken in

    def restart(self, incarnation: int, nodes: Iterable[str] = ()) -> None:
        """Take up work as this incarnation of the head: its epochs lie above all earlier ones, which left ``nodes``."""
        self.incarnation = incarnation
        self.roster.expected = set(nodes)
        self.ledger.begin(incarnation)

    def set_peers(self, keys: tuple[str, ...]) -> None:
        """Who may read from workers' data servers: tell all of them when it changes."""
        if keys != self.peer_keys:
            self.peer_keys = keys
            for worker in self.roster.workers.values():
                if worker.greeted:
                    self.sender.send(worker.id, wire.Peers(keys))

    # --- from the hub -----------------------------------------------------------------------------------------

    def receive(self, peer: str, messages: list[wire.WorkerMessage | wire.AgentMessage]) -> None:
        """Messages of one frame."""
        now = self._wake()
        self.ledger.miss_deadlines(now)
        for message in messages:
            if isinstance(message, wire.AgentHello | wire.AgentBeat):
                self._agent(peer, message, now)
            elif isinstance(message, wire.Reached):
                self.roster.reached(peer, message)
            else:
                self._worker(peer, message, now)

    def turn_over(self) -> None:
        """Everything that was waiting has been received."""
        self.act()

    def act(self) -> None:
        """Perform what the ledger wants done."""
        for effect in self.ledger.effects(self.clock()):
            self._perform(effect)
        if self._wishes_of and not self.ledger.holding:
            for node in self._wishes_of:
                if node in self.roster.nodes:  # one that has not reported yet goes on as it was told
                    self.sender.send(node, wire.Wishes(self.roster.wishes(node)))
            self._wishes_of = {}

    def tick(self) -> None:
        """A few times a second."""
        now = self._wake()
        self.ledger.tick(now)
        if self.ledger.holding and self.roster.all_greeted():
            self.ledger.release_hold()
        if self._wishes_due and not self.ledger.holding:
            self.rewish()
        for node in self.roster.nodes.values():
            if now - max(node.heard_s, node.said_s + SILENCE_AGAIN_S) > self.ledger.limits.lease_s:
                self.desk.event("node_silent", f"{node.id}: no word from its agent for {now - node.heard_s:.0f} s")
                node.said_s = now
        for worker in self.roster.workers.values():
            self._retry_role(worker, now)
        for worker in self.roster.overdue(now):
            self._end(worker)
        self.act()

    def _wake(self) -> float:
        """The time. If it was we who slept, silence is nobody's fault."""
        now = self.clock()
        if self._awake_s is not None and now - self._awake_s > self.ledger.limits.lease_s / 2:
            for worker in self.roster.workers.values():
                worker.heard_s = now
            for node in self.roster.nodes.values():
                node.heard_s = now
        self._awake_s = now
        return now

    # --- agents -----------------------------------------------------------------------------------------------

    def _agent(self, node: str, message: wire.AgentHello | wire.AgentBeat, now: float) -> None:
        self.sender.send(node, wire.Welcome(self.incarnation))
        if isinstance(message, wire.AgentHello):
            if message.node != node:
                return
            fresh = node not in self.roster.nodes
            self.roster.node_hello(message, now)
            if fresh:
                self.desk.event("node_up", f"{node}: {message.cpus} CPUs, {self.roster.gpus_in_words(node)}")
        state = self.roster.nodes.get(node)
        if state is None:
            self.sender.send(node, wire.Who())
            return
        state.heard_s = now
        for vitals in message.workers:
            if vitals.worker.startswith(f"{node}."):
                self._vitals(node, vitals, now)
        present = {v.worker for v in message.workers}
        for worker in self.roster.vanished(node, present, now - self.ledger.limits.lease_s):
            self._worker_gone(wire.WorkerVitals(worker, "", 0, "exited"), "its agent has it no more")
        if isinstance(message, wire.AgentHello):
            self._introduce(node)
            self.rewish()

    def _introduce(self, node: str) -> None:
        """Have it and the others find out whether they reach each other."""
        bells = {n.id: wire.Neighbour(n.id, n.doorbell) for n in self.roster.nodes.values() if n.doorbell}
        if node in bells:
            for other in [name for name in bells if name != node]:
                self.sender.send(other, wire.Knock((bells[node],)))
            self.sender.send(node, wire.Knock(tuple(bell for name, bell in bells.items() if name != node)))

    def _vitals(self, node: str, vitals: wire.WorkerVitals, now: float) -> None:
        if vitals.state == "exited":
            self._worker_gone(vitals, f"its process ended with {vitals.exit_code}")
            return
        worker = self.roster.vitals(node, vitals, now)
        if worker.doomed or not worker.running:
            return
        patience_s = HANG_S if worker.greeted else GREET_S
        if now - worker.heard_s > patience_s:
            self.desk.event("worker_hung", f"{worker.id}: alive, but silent for {patience_s:g} s; replacing it")
            self.ledger.worker_lost(worker.id, "hung")
            self._end(worker)
        elif worker.greeted:
            self.ledger.seen(worker.id, now)

    def rewish(self) -> None:
        """Work out the slots anew and tell every node; drain what is no longer wanted.

        Not while an earlier head's nodes still have time to report: until then they go on as they were told.
        """
        self._wishes_due = self.ledger.holding
        if self._wishes_due:
            return
        now = self.clock()
        self.roster.plan()
        for worker in [self.roster.workers[w] for w in self.roster.draining]:
            if self.roster.planned(worker):
                del self.roster.draining[worker.id]
                self._give_role(worker)  # it stops draining, and says that it is ready
        for worker in self.roster.surplus():
            self.roster.draining[worker.id] = now
            self.ledger.worker_draining(worker.id)
            self.sender.send(worker.id, wire.Drain())
            self.desk.event("drain", f"{worker.id}: {worker.role} has more workers than wanted")
        self._wishes_of.update(dict.fromkeys(self.roster.nodes))

    def _end(self, worker: WorkerState) -> None:
        """Have its process ended."""
        self.roster.doom(worker)
        self._wishes_of[worker.node] = None

    def _worker_gone(self, vitals: wire.WorkerVitals, why: str) -> None:
        known = self.roster.workers.get(vitals.worker)
        self.roster.forget(vitals.worker)
        self._holding.pop(vitals.worker, None)
        if known is not None and not known.doomed and not self.roster.planned(known):  # its agent would start it anew
            self._wishes_of[known.node] = None
        elif known is None or not known.doomed:
            self.desk.event("worker_lost", f"{vitals.worker}: {why}")
        charge = None if vitals.exit_code is None else () if vitals.computing is None else (vitals.computing,)
        self.ledger.worker_lost(vitals.worker, why, charge)

    # --- workers ----------------------------------------------------------------------------------------------

    def _worker(self, peer: str, message: wire.WorkerMessage, now: float) -> None:  # noqa: C901, PLR0912  # a table
        if isinstance(message, wire.Hello):
            self._hello(peer, message, now)
            return
        if isinstance(message, wire.Holding):
            told = self._holding.setdefault(peer, {})
            if len(told) < MAX_TOLD:
                told.update((h.ref, h) for h in message.held)
            return
        worker = self.roster.workers.get(peer)
        if worker is None or not worker.greeted:
            if isinstance(message, wire.Beat) and (worker is None or not worker.doomed):
                self.sender.send(peer, wire.Who())
            return
        worker.heard_s = now
        self.ledger.seen(peer, now)
        match message:
            case wire.Done():
                self._done(worker, message)
            case wire.Started(ref=ref):
                self.ledger.started(peer, ref, now)
                self.desk.progress(ref.request)
            case wire.Step(ref=ref, done=done, total=total):
                self.ledger.stepped(peer, ref, done, total, now)
                self.desk.progress(ref.request)
            case wire.Beat():
                self._beat(worker)
            case wire.Failed(ref=ref):
                self._failed(worker, message)
            case wire.InputLost(ref=ref, key=key, message=text):
                self.desk.event("input_lost", f"{ref.request}: {peer} could not get the input of {ref.stage}")
                self.ledger.input_lost(peer, ref, key, text)
            case wire.Returned(ref=ref):
                self.ledger.returned(peer, ref)
            case wire.RoleReady():
                self._ready(worker, message, now)
            case wire.RoleFailed():
                self._role_failed(worker, message, now)
            case wire.Drained():
                self._drained(worker)

    def _hello(self, peer: str, hello: wire.Hello, now: float) -> None:
        if hello.worker != peer or hello.version != wire.PROTOCOL_VERSION:
            self.desk.event("refused", f"{peer}: speaks protocol {hello.version}, this head {wire.PROTOCOL_VERSION}")
            return
        worker = self.roster.worker(peer, hello.node)
        if worker.doomed:
            return
        worker.heard_s, worker.greeted, worker.phase, worker.pid = now, True, hello.phase, hello.pid
        self.sender.send(peer, wire.Welcome(self.incarnation))
        self.sender.send(peer, wire.Peers(self.peer_keys))
        if worker.node in self.roster.nodes and not self.ledger.holding and not self.roster.planned(worker):
            self.roster.draining.setdefault(peer, now)  # it was started while its slot was still wished for
        if peer in self.roster.draining:
            self.sender.send(peer, wire.Drain())
        else:
            self._give_role(worker)
        if hello.role == worker.role and hello.phase in ("ready", "draining"):
            worker.load_s = hello.load_s
            self.ledger.worker_ready(peer, worker.role, self.prefetch, now)
            if hello.phase == "draining" or peer in self.roster.draining:
                self.ledger.worker_draining(peer)
        elif peer in self.ledger.workers:
            self.ledger.worker_lost(peer, "it lost its role", ())
        tasks = [(t.ref, t.started) for t in hello.tasks]
        held = self._holding.pop(peer, {}) | {h.ref: h for h in hello.held}
        outputs = [(h.ref, h.offer or h.artifact) for h in held.values()]
        self.ledger.resync(peer, tasks, outputs, now)

    def _give_role(self, worker: WorkerState) -> None:
        source = self.sources.get(worker.role.model)
        if source is not None and not worker.fatal:
            self.sender.send(worker.id, wire.SetRole(worker.role, source))

    def _retry_role(self, worker: WorkerState, now: float) -> None:
        if worker.retry_role_s is not None and now >= worker.retry_role_s:
            worker.retry_role_s = None
            self._give_role(worker)

    def _ready(self, worker: WorkerState, message: wire.RoleReady, now: float) -> None:
        if message.role != worker.role:
            self._give_role(worker)
            return
        news = worker.phase != "ready"
        worker.phase, worker.load_s, worker.why, worker.fatal = "ready", message.load_s, "", False
        if worker.id in self.roster.draining:
            self.sender.send(worker.id, wire.Drain())  # it was loading when it was told
            return
        if not news and worker.id not in self.ledger.workers:
            self.sender.send(worker.id, wire.Who())  # its leases ran out meanwhile: it may hold things
            return
        self.ledger.worker_ready(worker.id, worker.role, self.prefetch, now)
        if news:
            self.desk.event("worker_ready", f"{worker.id}: loaded {worker.role} in {message.load_s:.1f} s")

    def _role_failed(self, worker: WorkerState, message: wire.RoleFailed, now: float) -> None:
        worker.phase, worker.why, worker.fatal = "starting", message.message, message.fatal
        worker.retry_role_s = None if message.fatal else now + ROLE_RETRY_S
        self.ledger.worker_lost(worker.id, "it could not load its role", ())
        self.desk.event("load_failed", f"{worker.id}: {message.message}")

    def _beat(self, worker: WorkerState) -> None:
        self.sender.send(worker.id, wire.Welcome(self.incarnation))
        stranger = worker.phase in ("ready", "draining") and worker.id not in self.ledger.workers
        if stranger and worker.heard_s - worker.asked_s >= wire.HEARTBEAT_S / 2:
            worker.asked_s = worker.heard_s  # once, should many beats have been waiting for us
            self.sender.send(worker.id, wire.Who())  # its leases ran out while it was silent: agree again

    def _done(self, worker: WorkerState, message: wire.Done) -> None:
        result = message.offer or message.artifact
        if result is None:
            self.ledger.failed(worker.id, message.ref, "protocol", "a result without content", retry=True)
        elif self.ledger.done(worker.id, message.ref, result, message.seconds):
            recent = self.durations.setdefault(worker.role, [])
            recent.append(message.seconds)
            if len(recent) > 512:
                del recent[:256]
            self.desk.progress(message.ref.request)
        elif message.artifact is not None and not message.artifact.data:
            self.desk.discard_upload(message.ref)

    def _failed(self, worker: WorkerState, message: wire.Failed) -> None:
        self.desk.event("attempt_failed", f"{message.ref.request}: {message.ref.stage} on {worker.id}: {message.code}")
        self.ledger.failed(
            worker.id, message.ref, message.code, message.message, retry=message.retry, param=message.param
        )

    def _drained(self, worker: WorkerState) -> None:
        if worker.id in self.roster.draining:
            self.ledger.worker_lost(worker.id, "drained")
            self._end(worker)

    # --- effects ----------------------------------------------------------------------------------------------

    def _perform(self, effect: fx.Effect) -> None:
        match effect:
            case fx.Assign():
                task = wire.Task(effect.ref, effect.model, effect.attempt, effect.payload, effect.input)
                self.sender.send(effect.worker, wire.Assign(task))
            case fx.Release(worker=worker, key=key):
                self.sender.send(worker, wire.Release((key,)))
            case fx.CancelTask(worker=worker, ref=ref):
                self.sender.send(worker, wire.Cancel(ref))
            case fx.Publish():
                self.desk.publish(effect)
            case fx.Finish():
                self.desk.finish(effect)
            case fx.Condemn(worker=worker, why=why):
                self.desk.event("worker_condemned", f"{worker}: {why}; replacing it")
                if worker in self.roster.workers:
                    self._end(self.roster.workers[worker])
