"""Turns the hub's messages into ledger events, and the ledger's effects into messages and durable writes.

This is the interpreter of :mod:`planner.run.effects` for the real world. It decides nothing.
"""

import logging
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Final

from disagctl.engine_ports import Desk, Sender, pass_on, task_of
from disagctl.evacuation import evacuate
from disagctl.roster import GREET_S, HANG_S, Roster, WorkerState
from disagctl.routes import Routes
from disagctl.tally import Tally
from disagctl.watcher import Watcher
from planner.domain import Role, TaskRef
from planner.run import effects as fx
from planner.run.book import Request
from planner.run.ledger import Ledger
from stages import protocol as wire

log = logging.getLogger(__name__)

ROLE_RETRY_S: Final = 10.0
SILENCE_AGAIN_S: Final = 60.0
AGENT_NEWS: Final = (wire.AgentHello, wire.AgentBeat)
MAX_TOLD: Final = 10_000  # outputs that a peer may name ahead of its Hello


class Engine:
    """One service's runtime. Runs on the event loop; ``now`` is monotonic."""

    def __init__(
        self,
        ledger: Ledger,
        roster: Roster,
        incarnation: int,
        sources: dict[Role, wire.ModelSource],
        prefetch: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.ledger, self.roster, self.incarnation = ledger, roster, incarnation
        self.sources, self.prefetch, self.clock = sources, prefetch, clock
        self.peer_keys: tuple[str, ...] = ()
        self.sender: Sender
        self.desk: Desk
        self.watcher = Watcher()
        self.tally = Tally()
        self.routes = Routes(roster)
        self.alarm: Callable[[float], None] = lambda _at_s: None  # act again then, should nothing happen before
        self.ask: Callable[[fx.LoadRole], None] = lambda _wish: None  # whether a worker may take another role
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
        worker = self._hear(peer, now)
        for message in messages:
            if type(message) is wire.Done and worker is not None:
                self._done(worker, message, now)  # what there is most of, first
            else:
                self._other(peer, message, now)
                worker = self._hear(peer, now)

    def _hear(self, peer: str, now: float) -> WorkerState | None:
        """A sign of life; None: of an agent, or of a worker that has yet to say Hello."""
        worker = self.roster.workers.get(peer)
        if worker is None or not worker.greeted:
            return None
        worker.heard_s = now
        self.ledger.seen(peer, now)
        return worker

    def _other(self, peer: str, message: wire.WorkerMessage | wire.AgentMessage, now: float) -> None:
        if isinstance(message, AGENT_NEWS):
            self._agent(peer, message, now)
        elif isinstance(message, wire.Reached):
            self.roster.reached(peer, message)
        elif isinstance(message, wire.Notice):
            evacuate(self, peer, message.why)
        else:
            self._worker(peer, message, now)

    def turn_over(self) -> None:
        """Everything that was waiting has been received."""
        self.act()

    def act(self) -> None:
        """Perform what the ledger wants done."""
        released: defaultdict[str, list[str]] = defaultdict(list)
        for effect in self.ledger.effects(self.clock()):
            if type(effect) is fx.Release:
                released[effect.worker].append(effect.key)
            else:
                self._perform(effect)
        if self.ledger.look_again_s is not None:
            self.alarm(self.ledger.look_again_s)
        for worker, keys in released.items():
            self.sender.send(worker, wire.Release(tuple(keys)))
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
        for worker in self.roster.overdue(now, self.ledger.idle):
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
            if message.note and message.note != self.routes.notes.get(node):
                self.routes.notes[node] = message.note
                self.desk.event("transport", f"{node}: {message.note}")
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
            self._tell(self.routes.introduce(node))
            self.rewish()

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
        self.roster.plan({w.id: len(w.leases) for w in self.ledger.workers.values() if not w.draining})
        for worker in self.roster.workers.values():
            if worker.node in self.roster.nodes and not worker.doomed:
                self._follow_plan(worker, now)
        self._wishes_of.update(dict.fromkeys(self.roster.nodes))

    def _follow_plan(self, worker: WorkerState, now: float) -> None:
        role = self.roster.role_of(worker)
        if role is None:
            if worker.id not in self.roster.draining:
                self.roster.draining[worker.id] = now
                self.ledger.worker_draining(worker.id)
                self.sender.send(worker.id, wire.Drain())
                self.desk.event("drain", f"{worker.id}: {worker.role or 'it'} has more workers than wanted")
            return
        stays = worker.id not in self.roster.draining
        if stays and role == worker.role:
            if worker.given is None:
                self._give_role(worker)  # an earlier head's wish is ours, too
            return
        if stays and self._needed(worker):
            self._wishes_due = True  # at the next tick, then
            return
        self.roster.draining.pop(worker.id, None)
        self.become(worker, role, now)

    def _needed(self, worker: WorkerState) -> bool:
        """Whether work waits that only this worker can do now, while another one for it is on its way."""
        role = worker.role
        if role is None or self.ledger.takes(worker.id) != role or not self.ledger.queued(role):
            return False
        others = [w for w in self.roster.in_role(role) if w is not worker and self.roster.role_of(w) == role]
        return all(self.ledger.takes(w.id) != role for w in others) and any(not w.fatal for w in others)

    def become(self, worker: WorkerState, role: Role, now: float) -> None:
        """Have it take another role (or no longer end)."""
        worker.role, worker.why, worker.fatal, worker.retry_role_s = role, "", False, None
        if not worker.greeted:
            return  # it is told when it says Hello
        if worker.has is not None and worker.has != role:
            self.desk.event("switch", f"{worker.id}: from {worker.has} to {role}")
            self.ledger.worker_draining(worker.id, role)
            worker.ordered_s, worker.left = now, worker.has
        self._give_role(worker)

    def _end(self, worker: WorkerState) -> None:
        """Have its process ended."""
        self.roster.doom(worker)
        self._wishes_of[worker.node] = None

    def _worker_gone(self, vitals: wire.WorkerVitals, why: str) -> None:
        known = self.roster.workers.get(vitals.worker)
        self.roster.forget(vitals.worker)
        self.routes.left(vitals.worker)
        self._tell(self.routes.news())
        self._holding.pop(vitals.worker, None)
        if known is not None and self.roster.role_of(known) is None:
            self._wishes_of[known.node] = None  # its agent would start it anew; and another may wait for its GPUs
        elif known is None or not known.doomed:
            self.desk.event("worker_lost", f"{vitals.worker}: {why}")
        charge = None if vitals.exit_code is None else vitals.computing
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
        worker = self._hear(peer, now)
        if worker is None:
            known = self.roster.workers.get(peer)
            if isinstance(message, wire.Beat) and (known is None or not known.doomed):
                self.sender.send(peer, wire.Who())
            return
        match message:
            case wire.Started(ref=ref):
                self.ledger.started(peer, ref, now)
                if (request := self.ledger.requests.get(ref.request)) is not None:
                    self.watcher.started(worker, request, ref, now)
                self.desk.progress(ref.request)
            case wire.Step(ref=ref, done=done, total=total):
                self.ledger.stepped(peer, ref, done, total, now)
                self.desk.progress(ref.request)
            case wire.Beat():
                self._beat(worker)
            case wire.Failed(ref=ref):
                self._failed(worker, message)
            case wire.InputLost():
                self._input_lost(peer, message)
            case wire.Returned(ref=ref):
                self.ledger.returned(peer, ref)
            case wire.Paused():
                self._paused(peer, message)
            case wire.PauseRefused(ref=ref, why=why):
                self.ledger.pause_refused(peer, ref)
                self.desk.event("pause_refused", f"{ref.request}: {ref.stage} on {peer}: {why}")
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
        held = self._holding.pop(peer, {}) | {h.ref: h for h in hello.held}
        worker.heard_s, worker.greeted, worker.phase, worker.pid = now, True, hello.phase, hello.pid
        worker.has, worker.given, worker.worked = hello.role, None, hello.role is not None or bool(held)
        worker.role = worker.role or hello.role  # as an earlier head wished, until there is a plan
        self.sender.send(peer, wire.Welcome(self.incarnation))
        self.sender.send(peer, wire.Peers(self.peer_keys))
        self.routes.joined(peer)
        self._tell(self.routes.news())
        planned = self.roster.role_of(worker) is not None
        if worker.node in self.roster.nodes and not self.ledger.holding and not planned:
            self.roster.draining.setdefault(peer, now)  # it was started while its slot was still wished for
        if peer in self.roster.draining:
            self.sender.send(peer, wire.Drain())
        elif planned:
            self._give_role(worker)
        self._take_in(worker, hello, now)
        tasks = [(t.ref, t.started) for t in hello.tasks]
        outputs = [(h.ref, h.offer or h.artifact) for h in held.values() if not h.step]
        snapshots = [(h.ref, h.offer, h.step, h.seconds) for h in held.values() if h.step]
        self.ledger.resync(peer, tasks, outputs, now, snapshots)

    def _take_in(self, worker: WorkerState, hello: wire.Hello, now: float) -> None:
        """Have the ledger know the worker in the role that it has; without one, for what it made in an earlier one."""
        role = hello.role or worker.role
        if worker.worked and role is not None:
            worker.load_s = hello.load_s
            self._takes_tasks(worker, role, now, preemptible=hello.preemptible)
            if hello.phase != "ready" or role != worker.role or worker.id in self.roster.draining:
                self.ledger.worker_draining(worker.id)
        elif worker.id in self.ledger.workers:
            self.ledger.worker_lost(worker.id, "it lost its role", ())

    def _takes_tasks(self, worker: WorkerState, role: Role, now: float, *, preemptible: bool) -> None:
        gpu, source = self.roster.accelerator(worker.node), self.sources.get(role)
        self.ledger.worker_ready(
            worker.id, role, self.prefetch, now, preemptible=preemptible, accelerator=gpu,
            gpus=1 if source is None else source.ranks,
        )  # fmt: skip

    def _tell(self, news: Iterable[tuple[str, wire.Reach | wire.Knock]]) -> None:
        for peer, message in news:
            self.sender.send(peer, message)

    def _input_lost(self, peer: str, message: wire.InputLost) -> None:
        ref = message.ref
        self.desk.event("input_lost", f"{ref.request}: {peer} could not get the input of {ref.stage}")
        source = self.ledger.source_of(ref)
        if message.unreachable and source is not None and self.routes.cut_off(source):
            self.desk.event("transport", f"{peer} cannot reach {source}: its outputs go through the store as well")
            self._tell(self.routes.news())
        self.ledger.input_lost(peer, ref, message.key, message.message)

    def _give_role(self, worker: WorkerState) -> None:
        source = self.sources.get(worker.role) if worker.role is not None else None
        if source is not None and worker.role is not None and not worker.fatal:
            worker.given = worker.role
            if worker.has not in (None, worker.role):
                worker.phase = "switching"
            elif worker.phase == "starting":
                worker.phase = "loading"
            self.sender.send(worker.id, wire.SetRole(worker.role, source))

    def _retry_role(self, worker: WorkerState, now: float) -> None:
        if worker.retry_role_s is not None and now >= worker.retry_role_s:
            worker.retry_role_s = None
            self._give_role(worker)

    def _ready(self, worker: WorkerState, message: wire.RoleReady, now: float) -> None:
        role = message.role
        loaded = worker.has != role or worker.phase in ("starting", "loading")
        worker.has, worker.load_s = role, message.load_s
        worker.role = worker.role or role
        if role != worker.role:
            self._give_role(worker)
            return
        worker.phase, worker.why, worker.fatal = "ready", "", False
        if worker.id in self.roster.draining:
            self.sender.send(worker.id, wire.Drain())  # it was loading when it was told
            return
        if worker.worked and worker.id not in self.ledger.workers:
            self.sender.send(worker.id, wire.Who())  # we lost sight of it meanwhile: it may hold things
            return
        self._takes_tasks(worker, role, now, preemptible=message.preemptible)
        if loaded:
            self._loaded(worker, message, now)
        worker.worked, worker.ordered_s = True, None

    def _loaded(self, worker: WorkerState, message: wire.RoleReady, now: float) -> None:
        worker.done = 0
        drain_s = None if worker.ordered_s is None else max(0.0, now - worker.ordered_s - message.load_s)
        after = f", after {drain_s:.1f} s to finish its work" if drain_s is not None else ""
        how = "had" if message.warm else "loaded"
        self.desk.event("worker_ready", f"{worker.id}: {how} {message.role} in {message.load_s:.1f} s{after}")
        self.watcher.became(worker, message, drain_s)

    def _role_failed(self, worker: WorkerState, message: wire.RoleFailed, now: float) -> None:
        worker.has = None
        self.ledger.worker_draining(worker.id)  # what it made in an earlier role can still be had
        self.desk.event("load_failed", f"{worker.id}: {message.message}")
        if message.role == worker.role:  # else it goes on with the one that it was told since
            worker.phase, worker.why, worker.fatal = "starting", message.message, message.fatal
            worker.retry_role_s = None if message.fatal else now + ROLE_RETRY_S

    def _beat(self, worker: WorkerState) -> None:
        self.sender.send(worker.id, wire.Welcome(self.incarnation))
        stranger = worker.worked and worker.id not in self.ledger.workers
        if stranger and worker.heard_s - worker.asked_s >= wire.HEARTBEAT_S / 2:
            worker.asked_s = worker.heard_s  # once, should many beats have been waiting for us
            self.sender.send(worker.id, wire.Who())  # its leases ran out while it was silent: agree again

    def _done(self, worker: WorkerState, message: wire.Done, now: float) -> None:
        result, request = message.offer or message.artifact, self.ledger.requests.get(message.ref.request)
        source = self.ledger.source_of(message.ref)
        if source is not None:
            self.routes.used(source, worker.id, message.via)
        if result is None:
            self.ledger.failed(worker.id, message.ref, "protocol", "a result without content", retry=True)
        elif self.ledger.done(worker.id, message.ref, result, message.seconds, message.fetch_s, now):
            if request is not None:
                self._count(worker, request, message)
        elif message.artifact is not None and not message.artifact.data:
            self.desk.discard_upload(message.ref)

    def _count(self, worker: WorkerState, request: Request, done: wire.Done) -> None:
        """Remember how long it took, if it was computed and not remembered."""
        if done.cached:
            self.watcher.idle(worker.id)
        else:
            self.watcher.completed(worker, request, done)
            worker.done += 1  # after: it tells the first one in a role
        self.tally.add(request.roles[request.stages.index(done.ref.stage)], done)
        self.desk.progress(done.ref.request)

    def _paused(self, peer: str, message: wire.Paused) -> None:
        ref = message.ref
        if message.why:
            self.desk.event("snapshot_lost", f"{ref.request}: {ref.stage} on {peer} begins anew: {message.why}")
        if self.ledger.paused(peer, ref, message.step, message.seconds, message.offer):
            self.watcher.idle(peer)
            self.desk.progress(ref.request)

    def _failed(self, worker: WorkerState, message: wire.Failed) -> None:
        self.watcher.idle(worker.id)
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
                if (request := self.ledger.requests.get(effect.ref.request)) is not None:
                    self.watcher.assigned(request, request.role)
                self.sender.send(effect.worker, wire.Assign(task_of(effect)))
            case fx.CancelTask() | fx.SpreadTask() | fx.PauseTask():
                pass_on(effect, self.sender, self.desk)
            case fx.LoadRole():
                self.ask(effect)
            case fx.Publish():
                self.desk.publish(effect)
            case fx.Finish():
                self.desk.finish(effect)
            case fx.Condemn(worker=worker, why=why):
                self.desk.event("worker_condemned", f"{worker}: {why}; replacing it")
                if worker in self.roster.workers:
                    self._end(self.roster.workers[worker])
