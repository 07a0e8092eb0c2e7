"""A pretended cloud with the bad habits of real ones, and a head that can die between any two of its steps. No time passes
but on the clock here."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
import zmq

from disagctl import clock
from disagctl.engine import Engine
from disagctl.errors import InfeasibleError, UnhealthyError
from disagctl.events import EventLog
from disagctl.node_book import Recipe
from disagctl.nodes import Nodes
from disagctl.provision.base import NodeHandle, NodeRequest
from disagctl.roster import Roster
from disagctl.store import Store
from planner.domain import Offer, Role
from planner.run.fleet import NodeWish
from planner.run.ledger import Ledger
from stages.boot import Bootstrap, Enrolled
from stages.protocol import AgentBeat, AgentHello

H100 = Offer("cloud", "east", "big", "H100", 1, False, 4.0)
H100_WEST = Offer("cloud", "west", "big", "H100", 1, False, 5.0)
L4 = Offer("cloud", "east", "small", "L4", 1, False, 1.0)
WISH = NodeWish("h100", (H100, H100_WEST), 1)
SMALL = NodeWish("l4", (L4,), 2)


class Dead(BaseException):
    """The head's process was killed here."""


class Machine(msgspec.Struct):
    """One machine of the cloud."""

    node: str
    intent: str
    offer: Offer
    boot: Bootstrap
    made_s: float
    lies: int = 0  # so often it survives its end
    up_s: float = 0.0
    key: bytes = b""
    talks: bool = False


class Cloud:
    """Outlives heads. ``empty``: offers without capacity; ``lag_s``: of its list."""

    name = "cloud"
    period_s = 1.0

    def __init__(self) -> None:
        self.now = 1_000.0
        self.machines: dict[str, Machine] = {}
        self.launches: list[str] = []
        self.empty: set[str] = set()
        self.lag_s = 0.0
        self.boot_s = 5.0
        self.lies = 0
        self.late: set[str] = set()  # intents whose launch was accepted and then failed: the provider says so for ever
        self.fails_late = False
        self.create_errors = 0  # so many launches raise although the machine is made
        self.unreachable = False
        self.head: Head | None = None

    async def launch(self, request: NodeRequest) -> NodeHandle:
        """Make a machine of the first offer that has capacity."""
        self._step()
        tried = []
        if self.fails_late:
            self.late.add(request.intent)
            return NodeHandle(request.node, "launching", request.intent, provider_id=f"c-{request.intent}")
        for offer in request.offers:
            if str(offer) in self.empty:
                tried.append(f"{offer}: no capacity")
                continue
            boot = msgspec.json.decode(request.bootstrap, type=Bootstrap)
            self.launches.append(request.intent)
            self.machines.setdefault(
                request.intent,
                Machine(request.node, request.intent, offer, boot, self.now, self.lies, self.now + self.boot_s),
            )
            self._step()
            if self.create_errors:
                self.create_errors -= 1
                raise UnhealthyError("the answer was lost")
            return self._handle(self.machines[request.intent], tuple(tried))
        raise InfeasibleError("no capacity anywhere", why="; ".join(tried), code="no_capacity")

    async def list(self, known: Sequence[NodeHandle]) -> list[NodeHandle]:
        """Machines younger than the lag are missing."""
        self._step()
        if self.unreachable:
            raise UnhealthyError("the cloud does not answer")
        shown = {m.intent: m for m in self.machines.values() if self.now - m.made_s >= self.lag_s}
        mine = [self._handle(shown[h.intent]) if h.intent in shown else self._missing(h) for h in known]
        return mine + [self._handle(m) for i, m in shown.items() if i not in {h.intent for h in known}]

    async def release(self, handle: NodeHandle) -> None:
        """It may lie."""
        self._step()
        machine = self.machines.get(handle.intent)
        if machine is not None and machine.lies:
            machine.lies -= 1
        else:
            self.machines.pop(handle.intent, None)
        self._step()

    async def logs(self, handle: NodeHandle, tail: int) -> tuple[str, ...]:
        """None."""
        return ()

    def lose(self, node: str) -> None:
        """The machine dies."""
        self.machines = {i: m for i, m in self.machines.items() if m.node != node}

    def _step(self) -> None:
        if self.head is not None:
            self.head.step()

    def _missing(self, handle: NodeHandle) -> NodeHandle:
        if handle.intent in self.late:
            return msgspec.structs.replace(
                handle, state="failed", failure="no_capacity", why="none", tried=("east: none",)
            )
        return msgspec.structs.replace(handle, state="gone")

    def _handle(self, machine: Machine, tried: tuple[str, ...] = ()) -> NodeHandle:
        state: Any = "up" if self.now >= machine.up_s else "launching"
        return NodeHandle(
            machine.node,
            state,
            machine.intent,
            machine.offer,
            f"c-{machine.intent}",
            f"r-{machine.intent}",
            tried=tried,
        )


class Head:
    """One life of the head. ``die_at``: the step (a write or a call to the cloud) that kills it."""

    def __init__(
        self, cloud: Cloud, path: Path, wishes: tuple[NodeWish, ...], die_at: int | None = None, **recipe: Any
    ) -> None:
        self.cloud, self.die_at, self.steps, self.dead = cloud, die_at, 0, False
        cloud.head = self
        self.store = Store(path)
        write = self.store.write

        async def stepping(change: Any) -> Any:
            self.step()
            result = await write(change)
            self.step()
            return result

        self.store.write = stepping  # type: ignore[method-assign]
        self.engine = Engine(Ledger(0), Roster({Role("m", "denoise"): 1}), 1, {}, 0, clock=lambda: cloud.now)
        self.engine.sender, self.engine.desk = self, self  # type: ignore[assignment]
        self.events = EventLog(SimpleNamespace(read=self.store.read, write=write))  # type: ignore[arg-type]  # no step
        template = Bootstrap("", "tcp://head:1", "k" * 40, "", "", "/dev/shm/x", "")
        made = Recipe(template, "shop", "cafe0000", wishes, **recipe)
        ends = Enrolled("", "tcp://head:2", "tcp://head:3")
        self.nodes = Nodes(self.store, self.engine, self.events, cloud, made, self, self, ends)  # type: ignore[arg-type]
        self.nodes.sleep = self._sleep
        self.allowed: dict[str, str]

    def step(self) -> None:
        """Count; die when it is time."""
        if self.dead:
            raise Dead
        self.steps += 1
        if self.steps == self.die_at:
            self.dead = True
            raise Dead

    async def turn(self, seconds: float = 1.0) -> None:
        """Time passes, agents talk, the head reconciles. Raises Dead."""
        self.cloud.now += seconds
        await self._agents()
        await self.nodes.reconcile()
        while tasks := list(self.nodes._tasks.values()):
            done = await asyncio.gather(*tasks, return_exceptions=True)
            if any(isinstance(one, Dead) for one in done) or self.dead:
                raise Dead
        if self.dead:
            raise Dead

    async def turns(self, count: int, seconds: float = 1.0) -> None:
        """Several."""
        for _ in range(count):
            await self.turn(seconds)

    async def _agents(self) -> None:
        for machine in list(self.cloud.machines.values()):
            if self.cloud.now < machine.up_s + 1:
                continue
            machine.key = machine.key or zmq.curve_keypair()[0]
            node = machine.node
            if not machine.talks:
                answer = await self.nodes.admit(machine.boot.token.encode(), node.encode(), machine.key)
                machine.talks = answer is not None
            if machine.talks and self.allowed.get(machine.key.decode()) == node:
                if node not in self.engine.roster.nodes:
                    self.engine.receive(node, [AgentHello(1, node, node, 1, 2, 1 << 30)])
                self.engine.receive(node, [AgentBeat(1)])

    def close(self) -> None:
        """Threads."""
        self.store.close()

    def said(self, kind: str) -> list[str]:
        """Events of a kind."""
        return [event.why for event in self.events.after(0) if event.kind == kind]

    async def _sleep(self, seconds: float) -> None:
        self.cloud.now += seconds

    # hub, data server, sender and desk

    def send(self, peer: str, message: Any) -> None:
        """Nobody listens."""

    def allow(self, nodes: dict[str, str]) -> None:
        """The hub's list."""
        self.allowed = dict(nodes)

    def set_peers(self, keys: Any) -> None:
        """The data server's list."""

    def event(self, kind: str, why: str) -> None:
        """The engine's."""
        self.events.add(kind, why)


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch) -> Cloud:
    """A cloud whose clock is the wall's as well."""
    made = Cloud()
    monkeypatch.setattr(clock, "wall_s", lambda: made.now)
    return made
