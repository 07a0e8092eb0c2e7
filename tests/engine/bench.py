"""An engine on a bench: messages in, messages out."""

from collections import defaultdict

from disagctl.engine import Engine
from disagctl.roster import Roster
from planner.domain import Role, TaskRef
from planner.run import effects as fx
from planner.run.book import Limits, Request
from planner.run.ledger import Ledger
from stages import protocol as wire

ENCODE, DENOISE, DECODE = (Role("m", stage) for stage in ("encode", "denoise", "decode"))
SLOT, WORKER = "cpu0", "n1.cpu0.1"
SOURCE = wire.ModelSource("m", "synthetic")


class Bench:
    """An engine whose hub and desk only take notes."""

    def __init__(self, count: int = 1, wanted: dict[Role, int] | None = None, limits: Limits | None = None) -> None:
        self.now = 0.0
        self.ledger, self.roster = Ledger(1, limits), Roster(wanted or {ENCODE: count})
        self.engine = Engine(
            self.ledger, self.roster, 1, dict.fromkeys(self.roster.wanted, SOURCE), 2, lambda: self.now
        )
        self.engine.sender, self.engine.desk = self, self
        self.sent: dict[str, list[wire.HeadMessage | wire.AgentOrder]] = defaultdict(list)
        self.events: list[str] = []
        self.uploads_discarded: list[TaskRef] = []

    def send(self, peer: str, message: wire.HeadMessage | wire.AgentOrder) -> None:
        self.sent[peer].append(message)

    def publish(self, effect: fx.Publish) -> None: ...

    def finish(self, effect: fx.Finish) -> None: ...

    def progress(self, request: str) -> None: ...

    def event(self, kind: str, why: str) -> None:
        assert why
        self.events.append(kind)

    def discard_upload(self, ref: TaskRef) -> None:
        self.uploads_discarded.append(ref)

    # --- what tests say ---

    def hear(self, peer: str, *messages: wire.WorkerMessage | wire.AgentMessage) -> None:
        self.engine.receive(peer, list(messages))
        self.engine.turn_over()

    def told(self, peer: str) -> list[str]:
        """Kinds of messages sent to the peer since the last look."""
        return [type(message).__name__ for message in self.sent.pop(peer, [])]

    def agent(self, *workers: str, hello: bool = False, state: str = "running") -> None:
        vitals = tuple(wire.WorkerVitals(w, SLOT, 1, state) for w in workers)
        if hello:
            self.hear("n1", wire.AgentHello(wire.PROTOCOL_VERSION, "n1", "h", 1, 8, 1, (), vitals))
        else:
            self.hear("n1", wire.AgentBeat(1, vitals))

    def hello(self, worker: str = WORKER, phase: str = "starting", tasks: tuple[wire.HeldTask, ...] = ()) -> None:
        role = ENCODE if phase in ("ready", "draining") else None
        self.hear(worker, wire.Hello(wire.PROTOCOL_VERSION, worker, "n1", 1, role, phase, 0.0, tasks))

    def up(self) -> None:
        """One node, one ready worker."""
        self.agent(hello=True)
        self.agent(WORKER)
        self.hello()
        self.hear(WORKER, wire.RoleReady(ENCODE, 1.0))
        self.engine.tick()
        self.sent.clear()

    def fleet(self) -> dict[Role, list[str]]:
        """One node with a ready worker in every place; their ids by role."""
        self.agent(hello=True)
        found: dict[Role, list[str]] = {}
        for plan in self.roster.plans:
            worker = f"n1.{plan.slot}.1"
            found.setdefault(plan.role, []).append(worker)
            self.agent(*[w for workers in found.values() for w in workers])
            self.hear(worker, wire.Hello(wire.PROTOCOL_VERSION, worker, "n1", 1))
            self.hear(worker, wire.RoleReady(plan.role, 1.0))
        self.engine.tick()
        self.sent.clear()
        return found

    def want(self, **counts: int) -> None:
        """Other counts, by stage."""
        self.roster.wanted = {Role("m", stage): count for stage, count in counts.items()}
        self.rewish()

    def submit(self, name: str, stages: tuple[str, ...] = ("encode",), alike: str = "") -> TaskRef | None:
        self.ledger.submit(Request(name, "m", stages, b"{}", 0, self.now, alike=alike))
        self.engine.act()
        lease = self.ledger.requests[name].lease
        return lease.ref if lease else None

    def holder(self, name: str) -> str | None:
        lease = self.ledger.requests[name].lease
        return lease.worker if lease else None

    def rewish(self) -> None:
        self.engine.rewish()
        self.engine.act()

    def wished(self) -> list[wire.WorkerWish]:
        wishes = [message for message in self.sent["n1"] if isinstance(message, wire.Wishes)]
        return list(wishes[-1].workers)

    def pass_time(self, seconds: float, *, agent: tuple[str, ...] = (), beat: tuple[str, ...] = ()) -> None:
        end = self.now + seconds
        while self.now < end:
            self.now += 0.5
            self.agent(*agent)
            for worker in beat:
                self.hear(worker, wire.Beat(1))
            self.engine.tick()
