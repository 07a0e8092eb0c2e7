"""Nodes that are not there: one process plays the agents and workers of many, each over a CURVE socket of its own.

Agents keep their slots as real ones do, and a worker is the product's own state machine around stages that take no time.
No tensor moves. Started by :mod:`bench.fleet_load`, which writes a :class:`Boot` and then orders to standard input, a line
each: ``hold`` (keep tasks instead of answering), ``report`` (print the latencies since the last report); its end is ours.
"""

import asyncio
import contextlib
import os
import resource
import sys
import time
from abc import ABC, abstractmethod
from typing import Any, Final

import msgspec
import xxhash
import zmq

from disagctl.hub import descriptor
from disagctl.settings import use_fast_loop
from planner.domain import TaskRef
from stages.core import WorkerCore
from stages.instructions import Compute, Instruction, Load, Send
from stages.link import Link
from stages.models.synthetic import parse
from stages.parcel import pack
from stages.protocol import (
    HEARTBEAT_S,
    PROTOCOL_VERSION,
    AgentBeat,
    AgentHello,
    AgentOrder,
    Artifact,
    Done,
    GpuInfo,
    HeadMessage,
    InlineRoute,
    Offer,
    Shutdown,
    Task,
    Welcome,
    Who,
    Wishes,
    WorkerMessage,
    WorkerVitals,
)
from stages.slots import SlotBook, Start

BATCH: Final = 25  # nodes that connect at a time: the head's listen queue is finite
BATCH_S: Final = 0.05
BEAT_PARTS: Final = 50  # heartbeats are spread over the second, as those of real nodes are
MAX_SOCKETS: Final = 8192
PICTURE: Final = b"\x89PNG"


class Boot(msgspec.Struct):
    """``nodes``: (name, public key, secret key), all on the head's list already."""

    hub: str
    head_key: str
    nodes: list[tuple[str, str, str]]


class Fleet:
    """What all nodes share: the way to the head, the clock of hand-overs, whether tasks are kept."""

    def __init__(self, boot: Boot) -> None:
        self.boot = boot
        self.context: zmq.Context[Any] = zmq.Context()
        self.context.set(zmq.MAX_SOCKETS, MAX_SOCKETS)
        self.loop = asyncio.get_running_loop()
        self.holding = False
        self.done_s: dict[str, float] = {}  # request → when its last stage was said to be done
        self.latencies_s: list[float] = []
        self.agents: list[FakeAgent] = []
        self.tasks = 0

    async def join(self) -> None:
        """Connect all nodes."""
        for start in range(0, len(self.boot.nodes), BATCH):
            self.agents += [FakeAgent(self, *node) for node in self.boot.nodes[start : start + BATCH]]
            await asyncio.sleep(BATCH_S)

    async def beat(self) -> None:
        """Heartbeats of everybody, for ever."""
        part = 0
        while True:
            for agent in self.agents[part::BEAT_PARTS]:
                agent.beat()
            part = (part + 1) % BEAT_PARTS
            await asyncio.sleep(HEARTBEAT_S / BEAT_PARTS)

    def assigned(self, ref: TaskRef) -> None:
        """A task has come: how long after its request's last stage was done?"""
        self.tasks += 1
        done_s = self.done_s.pop(ref.request, None)
        if done_s is not None:
            self.latencies_s.append(time.monotonic() - done_s)

    def order(self, line: str) -> None:
        """One line from whoever started us."""
        if line == "hold":
            self.holding = True
        elif line == "report":
            print(msgspec.json.encode((self.tasks, self.latencies_s)).decode(), flush=True)
            self.tasks, self.latencies_s = 0, []


class Peer(ABC):
    """A connection that is read whenever something came."""

    def __init__(self, fleet: Fleet, name: str, keys: tuple[str, str], incoming: Any) -> None:
        self._fleet, self._open = fleet, True
        self.link: Link[Any, Any] = Link(fleet.context, fleet.boot.hub, name, keys, fleet.boot.head_key, incoming)
        self._fd = descriptor(self.link.socket)
        fleet.loop.add_reader(self._fd, self._readable)

    def send(self, messages: list[Any]) -> None:
        """Send, and look again: sending can swallow the edge that the descriptor fires on."""
        if messages:
            self.link.send(messages)
            self._fleet.loop.call_soon(self._readable)

    def close(self) -> None:
        """Hang up."""
        self._fleet.loop.remove_reader(self._fd)
        self._open = False
        self.link.close()

    def _readable(self) -> None:
        if not self._open:
            return
        messages, lost = self.link.receive()
        if messages or lost:
            self.receive(messages, lost=lost)

    @abstractmethod
    def receive(self, messages: list[Any], *, lost: bool) -> None:
        """Messages of the head."""


class FakeWorker(Peer):
    """A worker whose stages take no time."""

    def __init__(self, fleet: Fleet, node: str, worker: str, slot: str, keys: tuple[str, str]) -> None:
        super().__init__(fleet, worker, keys, list[HeadMessage])
        self.vitals = WorkerVitals(worker, slot, os.getpid(), "running")
        self._core = WorkerCore(worker, node, os.getpid())
        self._last = False
        self._out: list[WorkerMessage] = []
        self._do(self._core.restate())

    def receive(self, messages: list[HeadMessage], *, lost: bool) -> None:
        """What the head wants of us."""
        for message in messages:
            self._perform(self._core.message(message))
        self._do(self._core.gap() if lost else [])

    def beat(self) -> None:
        """Once a heartbeat."""
        self._do(self._core.beat())

    def _do(self, instructions: list[Instruction]) -> None:
        self._perform(instructions)
        out, self._out = self._out, []
        self.send(out)

    def _perform(self, instructions: list[Instruction]) -> None:
        for instruction in instructions:
            match instruction:
                case Send(message=message):
                    self._out.append(message)
                    if isinstance(message, Done) and not self._last:
                        self._fleet.done_s[message.ref.request] = time.monotonic()
                case Load(role=role, source=source):
                    self._last = role.stage == list(parse(source.options))[-1]
                    self._perform(self._core.loaded(role, 0.0, 0))
                case Compute(task=task):
                    self._fleet.assigned(task.ref)
                    if not self._fleet.holding:
                        self._perform(self._core.published(task.ref, *self._result(task), 0.0))
                case _:
                    continue

    def _result(self, task: Task) -> tuple[Offer | None, Artifact | None]:
        if self._last:
            return None, Artifact("image/png", len(PICTURE), xxhash.xxh3_64_intdigest(PICTURE), PICTURE)
        return Offer(task.ref.key, TREE, (), (InlineRoute(b""),)), None


class FakeAgent(Peer):
    """A node with one GPU."""

    def __init__(self, fleet: Fleet, node: str, public: str, secret: str) -> None:
        super().__init__(fleet, node, (public, secret), list[AgentOrder])
        self._node, self._keys = node, (public, secret)
        self._head = 0
        self._book = SlotBook(node)
        self._workers: dict[str, FakeWorker] = {}
        self._hello()

    def receive(self, messages: list[AgentOrder], *, lost: bool) -> None:
        """What the head wants of this node."""
        for message in messages:
            match message:
                case Welcome(head=head):
                    lost |= self._head not in (0, head)
                    self._head = head
                case Who():
                    lost = True
                case Wishes(workers=workers):
                    self._book.wish(workers)
                    self._act()
                case Shutdown():
                    self._book.wish(())
                    self._act()
        if lost:
            self._hello()

    def beat(self) -> None:
        """Once a heartbeat: the agent's own, and its workers'."""
        self._act()
        self.send([AgentBeat(self._head, self._vitals())])
        for worker in self._workers.values():
            worker.beat()

    def _hello(self) -> None:
        gpu = GpuInfo(0, "simulated", 80 << 30)
        host = f"host-of-{self._node}"
        self.send([AgentHello(PROTOCOL_VERSION, self._node, host, os.getpid(), 8, 64 << 30, (gpu,), self._vitals())])

    def _vitals(self) -> tuple[WorkerVitals, ...]:
        return tuple(worker.vitals for worker in self._workers.values())

    def _act(self) -> None:
        for action in self._book.actions(time.monotonic()):
            if isinstance(action, Start):
                self._workers[action.worker] = FakeWorker(
                    self._fleet, self._node, action.worker, action.slot, self._keys
                )
            elif (worker := self._workers.pop(action.worker, None)) is not None:
                worker.close()
                self._book.died(action.worker, time.monotonic())
                exited = msgspec.structs.replace(worker.vitals, state="exited", exit_code=0)
                self.send([AgentBeat(self._head, (*self._vitals(), exited))])


TREE: Final = pack({}).tree


async def play(boot: Boot) -> None:
    """Until standard input ends."""
    fleet = Fleet(boot)
    loop, lines = asyncio.get_running_loop(), asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    background = [asyncio.create_task(fleet.beat()), asyncio.create_task(fleet.join())]
    while line := await lines.readline():
        fleet.order(line.decode().strip())
    for task in background:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def main() -> None:
    """Entry point."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    use_fast_loop()
    stdin = open(sys.stdin.fileno(), "rb", buffering=0, closefd=False)  # noqa: SIM115  # takes no more than its line
    boot = msgspec.json.decode(stdin.readline(), type=Boot)
    asyncio.run(play(boot))
    os._exit(0)  # thousands of sockets need not be closed one by one


if __name__ == "__main__":
    main()
