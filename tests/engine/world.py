"""A whole service on virtual time: the real engine, ledger, roster, worker core and slot book, everything else pretended.

``World(seed, …).play()`` draws requests and faults from the seed, lets them happen, and checks what RELIABILITY promises.
The same seed gives the same history, to the byte.
"""

import re
import traceback
from collections.abc import Callable
from functools import partial

import msgspec

from disagctl.roster import GREET_S
from planner.domain import Role
from planner.run.orders import DispatchConfig
from stages.slots import LONGEST_PAUSE_S
from tests.engine.clockwork import Channel, Clockwork
from tests.engine.head import Head, Row, Store
from tests.engine.nodes import Node
from tests.engine.pipeline import Proc, digest
from tests.engine.rules import at_rest

STAGES = ("encode", "denoise", "decode")
SECONDS = {"encode": 0.1, "denoise": 1.2, "decode": 0.4, "upscale": 0.3}
REST_S = 15.0  # time to settle once everything is finished
SETTLE_S = LONGEST_PAUSE_S + GREET_S  # a slot that failed often pauses; one that hangs is given time
PATIENCE_S = 400.0  # after the last fault, everything is finished by then


class Nature(msgspec.Struct):
    """What a request is like. kind: good | poison (kills its worker) | bad (refused) | flaky (fails once)."""

    kind: str = "good"
    fails_in: str = ""
    small: bool = False


class Trouble(AssertionError):
    """A promise is broken; the message names the seed."""


class World:
    """Build, let faults be scheduled, ``play``."""

    def __init__(
        self, seed: int, *, requests: int = 24, wanted: tuple[int, ...] = (1, 3, 2), nodes: tuple[int, ...] = (4, 2),
        stages: tuple[str, ...] = STAGES, synchronous: bool = False, over_s: float = 15.0, talk: bool = False,
        batch: int = 1, batch_wait_s: float = 0.0, dispatch: DispatchConfig | None = None, width: int = 0,
    ) -> None:  # fmt: skip
        self.seed, self.talk = seed, talk
        self.clockwork = Clockwork(seed)
        self.stages, self.synchronous = stages, synchronous
        self.wanted = {Role("m", stage): count for stage, count in zip(stages, wanted, strict=True)}
        self.dispatch = dispatch
        self.width = width  # GPUs of a worker of the second stage, as the spec has it at the time; 0: one, always
        self.version = 0
        self.batch, self.batch_wait_s = batch, batch_wait_s
        self.batches: list[tuple[str, int]] = []
        self.faulty = self.replayed = False
        self.slow = 1.0
        self.healthy_s = 0.0
        self.crash_at: tuple[int, str] | None = None
        self.nodes: dict[str, Node] = {}
        self.procs: dict[str, Proc] = {}
        self.to_head: dict[str, Channel] = {}
        self.from_head: dict[str, Channel] = {}
        self.natures: dict[str, Nature] = {}
        self.cancelled: set[str] = set()
        self.most_outputs = 0
        self.resumed = 0
        self.history: list[str] = []
        self._named = 0
        self._sizes = nodes
        self.store = Store(self)
        self.head: Head | None = None
        for gpus in nodes:
            self._new_node(gpus)
        self.start_head()
        for number in range(requests):
            self._post_later(f"r{number}", self.clockwork.rng.uniform(0.0, over_s))

    # --- natures ---

    def nature(self, request: str) -> Nature:
        return self.natures[request]

    def recover_nature(self, request: str) -> None:
        self.natures[request].fails_in = ""

    def seconds(self, stage: str, request: str) -> float:
        rng = self.clockwork.rng
        return SECONDS[stage] * rng.uniform(0.5, 1.5) * (self.slow if stage == self.stages[-1] else 1.0)

    def expected(self, request: str) -> bytes:
        content = b""
        for stage in self.stages:
            content = digest(stage, request.encode(), content)
        return content

    # --- clients ---

    def _post_later(self, item: str, when: float) -> None:
        rng = self.clockwork.rng
        kind = rng.choices(("good", "poison", "bad", "flaky"), (20, 1, 1, 2))[0]
        fails_in = rng.choice(self.stages) if kind != "good" else ""
        self.natures[item] = Nature(kind, fails_in, rng.random() < 0.5)
        row = Row(item, rng.choice((0, 0, 0, 5)), len(self.natures) % 2 == 0, rng.choice((2.0, 5.0, 40.0)))
        answered: list[bool] = []

        def post() -> None:
            if answered:
                return
            if self.head is not None and not self.head.asleep:
                self.head.accept(row, lambda: answered.append(True))
                self.head.turn_over()
            self.clockwork.after(3.0, post)  # the client repeats itself, with the same Idempotency-Key

        self.clockwork.at(when, post)

    def cancel(self, item: str) -> None:
        if self.head is not None and not self.head.asleep and item in self.head.ledger.requests:
            self.cancelled.add(item)
            self.head.cancel(item)

    # --- machines ---

    def _new_node(self, gpus: int) -> None:
        self._named += 1
        name = f"n{self._named}"
        self.say(f"node {name} with {gpus} GPUs")
        self.nodes[name] = Node(self, name, gpus)

    def reconcile(self) -> list[str]:
        """Nodes that are gone; new ones come in their place."""
        gone = [node for node in self.nodes.values() if not node.alive]
        for node in gone:
            del self.nodes[node.id]
            self.clockwork.after(1.0, partial(self._new_node, node.gpus))
        return [node.id for node in gone]

    def died(self, proc: Proc, code: int) -> None:
        self.say(f"{proc.id} died with {code}")
        node = self.nodes.get(proc.node)
        if node is not None:
            node.died(proc, code)
        if proc.id in self.from_head:
            self.from_head[proc.id].shut_down(keeps=False)
            if self.faulty and self.clockwork.rng.random() < 0.1:
                self.to_head[proc.id].shut_down(keeps=False)  # its last words do not make it

    def ordered_to_end(self, worker: str) -> None:
        """An agent ends a worker: only one that the head gave up or has drained, not a healthy one by mistake."""
        head = self.head
        if head is None or head.asleep or self.replayed or self.clockwork.now - head.born_s < REST_S:
            return  # the order may be an earlier head's
        known = head.roster.workers.get(worker)
        settled = self.clockwork.now - self.procs[worker].loaded_s > REST_S  # news of younger ones may be under way
        assert known is None or known.doomed or not settled, f"{worker} is ended though it is {known}"

    # --- links ---

    def connect(self, peer: str, receive: Callable[[bytes], None]) -> Channel:
        to_head = self.to_head[peer] = Channel(self.clockwork, lambda frame: self._to_head(peer, frame))
        self.from_head[peer] = Channel(self.clockwork, receive)
        if self.head is None:
            to_head.shut_down(keeps=True)
        return to_head

    def _to_head(self, peer: str, frame: bytes) -> None:
        if self.head is not None:
            self.head.receive(peer, frame)

    # --- the head ---

    def start_head(self) -> None:
        self.head = Head(self, self.store)
        self.say(f"head {self.store.incarnation}")
        for channel in self.to_head.values():
            channel.open_up()

    def crash_head(self, away_s: float | None = None) -> None:
        if self.head is None:
            return
        rng = self.clockwork.rng
        self.say("head crashes")
        self.head.alive = False
        self.head = None
        for channel in self.to_head.values():
            channel.shut_down(keeps=rng.random() < 0.5)
        for channel in self.from_head.values():
            if rng.random() < 0.5:  # else what it said is still on its way
                channel.shut_down(keeps=False)
                channel.open_up()
        self.clockwork.after(away_s if away_s is not None else rng.uniform(0.2, 8.0), self.start_head)

    def watch(self, head: Head) -> None:
        """Called at every tick."""
        held = sum(len(request.outputs) for request in head.ledger.requests.values())
        self.most_outputs = max(self.most_outputs, held)

    # --- the play ---

    def until(self, seconds: float, end: Callable[[], None]) -> None:
        """A fault that ends after this time."""
        self.clockwork.after(seconds, end)
        self.healthy_s = max(self.healthy_s, self.clockwork.now + seconds)

    def say(self, text: str) -> None:
        if self.talk:
            print(f"{self.clockwork.now:9.3f} {text}")
        self.history.append(f"{self.clockwork.now:.6f} {text}")

    def play(self, quiet_after_s: float) -> None:
        """Faults end at ``quiet_after_s``; everything has to be finished and forgotten some time later."""
        self._unchecked(quiet_after_s) if self.talk else self._checked(quiet_after_s)

    def _checked(self, quiet_after_s: float) -> None:
        try:
            self._unchecked(quiet_after_s)
        except Exception as err:
            said = "\n".join(self.history[-30:])
            where = traceback.extract_tb(err.__traceback__)[-1]
            text = str(err) or f"{type(err).__name__} in {where.name}, {where.filename}:{where.lineno}: {where.line}"
            raise Trouble(f"seed {self.seed} at {self.clockwork.now:.3f} s: {text}\n{said}") from err

    def _unchecked(self, quiet_after_s: float) -> None:
        self.clockwork.run(quiet_after_s)
        self.clockwork.run(max(quiet_after_s, self.healthy_s))
        while not self.finished:
            self.clockwork.run(self.clockwork.now + 2.0)
            assert self.clockwork.now < self.healthy_s + quiet_after_s + PATIENCE_S, (
                f"never finished: {self._unfinished()}"
            )
        self.clockwork.run(self.clockwork.now + REST_S)
        deadline = self.clockwork.now + SETTLE_S
        while not self._settled() and self.clockwork.now < deadline:
            self.clockwork.run(self.clockwork.now + REST_S)
        self._verdict()

    @property
    def finished(self) -> bool:
        rows = self.store.rows
        return (
            self.head is not None and len(rows) == len(self.natures) and all(r.state != "open" for r in rows.values())
        )

    def _unfinished(self) -> list[str]:
        missing = [item for item in self.natures if item not in self.store.rows]
        requests = self.head.ledger.requests.values() if self.head else ()
        return missing + [f"{r.id} at {r.role} lease {r.lease} publishing {r.publishing}" for r in requests]

    def _verdict(self) -> None:
        for item, nature in self.natures.items():
            self._judge(self.store.rows[item], nature)
        assert self.head is not None
        at_rest(self.head.ledger)
        alive = {proc.id for proc in self.procs.values() if proc.alive}
        for worker in alive:
            proc = self.procs[worker]
            assert proc.empty, f"{worker} still holds {self.procs[worker].core.held}"
        known = {worker.id for worker in self.head.roster.workers.values() if worker.node in self.nodes}
        assert known == alive, f"the roster differs: {sorted(known ^ alive)}"
        assert set(self.head.ledger.workers) == alive, f"idle: {sorted(set(self.head.ledger.workers) ^ alive)}"
        assert self._roles() == self._wanted_roles()
        assert not any(w.draining for w in self.head.ledger.workers.values())
        assert not self.head.roster.draining

    def _settled(self) -> bool:
        hangs = any(p.alive and (p.wedged or (p.stalled and p.core.tasks)) for p in self.procs.values())
        return self._roles() == self._wanted_roles() and not hangs

    def _roles(self) -> list[str]:
        alive = [proc for proc in self.procs.values() if proc.alive]
        return sorted(str(proc.core.role) for proc in alive if proc.core.phase == "ready")

    def _wanted_roles(self) -> list[str]:
        return sorted(str(role) for role, count in self.wanted.items() for _ in range(count))

    def _judge(self, row: Row, nature: Nature) -> None:
        told = f"{row.id} ({nature.kind}) {row.state} {row.code} {row.evidence}"
        assert row.endings == 1, f"{told}: ended {row.endings} times"
        if row.state == "cancelled":
            assert row.id in self.cancelled, told
            return
        if row.state == "succeeded":
            assert nature.kind in ("good", "flaky"), told
            assert row.content == self.expected(row.id), told
            return
        assert row.content is None
        assert nature.kind in ("poison", "bad") or self._unlucky(row), told
        if nature.kind == "bad":
            assert row.code in ("bad_request", "dead_letter"), told
        if row.code == "dead_letter":
            assert len(row.evidence) == 3, told
            assert nature.kind != "poison" or len({attempt.worker for attempt in row.evidence}) == 3, told

    def _unlucky(self, row: Row) -> bool:
        """A good request may lose three workers under it; only faults of ours may have taken them."""
        pattern = r"process ended|not heard|is lost|no progress|hung|has it no more|not uploaded|no head|out of memory"
        return row.code == "dead_letter" and all(re.search(pattern, attempt.message) for attempt in row.evidence)
