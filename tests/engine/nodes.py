"""A node of the simulated world: its agent (the real SlotBook, a pretended process table) and its workers."""

from typing import TYPE_CHECKING

import msgspec

from planner.run.fleet import slot_gpus
from stages.link import SEQ_BYTES, Counter, frames_of
from stages.protocol import (
    PROTOCOL_VERSION,
    AgentBeat,
    AgentHello,
    AgentMessage,
    AgentOrder,
    GpuInfo,
    Notice,
    Welcome,
    Who,
    Wishes,
    WorkerVitals,
)
from stages.slots import SlotBook, Start
from tests.engine.clockwork import Channel
from tests.engine.pipeline import ENCODER, Proc

if TYPE_CHECKING:
    from tests.engine.world import World

DECODER = msgspec.msgpack.Decoder(list[AgentOrder])
POLL_S = 0.2


class Node:
    """One machine. ``lose`` takes the agent and its workers at once."""

    def __init__(self, world: "World", name: str, gpus: int) -> None:
        self.world, self.id, self.gpus = world, name, gpus
        self.alive = True
        self.book = SlotBook(name)
        self.procs: dict[str, Proc] = {}
        self.head = 0
        self._ended: list[WorkerVitals] = []
        self._counter = Counter()
        self._next_beat_s = 0.0
        self.to_head: Channel = world.connect(name, self.receive)
        self._send(self._hello())
        self._poll()

    def lose(self) -> None:
        self.alive = False
        for proc in list(self.procs.values()):
            proc.die(-9)

    def notice(self) -> None:
        """It will be taken away soon."""
        self._send(Notice("spot"))

    def died(self, proc: Proc, code: int) -> None:
        """A child has ended: noticed at the next poll. The flight recorder tells what it was computing."""
        self.procs.pop(proc.id, None)
        self._ended.append(WorkerVitals(proc.id, proc.slot, 1, "exited", code, computing=proc.computing))

    def receive(self, frame: bytes) -> None:
        if not self.alive:
            return
        lost = not self._counter.check(memoryview(frame))
        for order in DECODER.decode(frame[SEQ_BYTES:]):
            match order:
                case Welcome(head=head):
                    lost |= self.head not in (0, head)
                    self.head = head
                case Who():
                    lost = True
                case Wishes(workers=workers):
                    self.book.wish(workers)
        if lost:
            self._send(self._hello())

    def _send(self, message: AgentMessage) -> None:
        for data in frames_of([message], ENCODER):
            self.to_head.send(self._counter.stamp() + data)

    def _vitals(self) -> tuple[WorkerVitals, ...]:
        return tuple(
            WorkerVitals(p.id, p.slot, 1, "stopped" if p.stopped and not p.wedged else "running")
            for p in self.procs.values()
        )

    def _hello(self) -> AgentHello:
        gpus = tuple(GpuInfo(i, "H200", 1 << 37) for i in range(self.gpus))
        return AgentHello(PROTOCOL_VERSION, self.id, self.id, 1, 8, 1 << 36, gpus, self._vitals())

    def _poll(self) -> None:
        if not self.alive:
            return
        now = self.world.clockwork.now
        ended, self._ended = self._ended, []
        for vitals in ended:
            self.book.died(vitals.worker, now)
        for action in self.book.actions(now):
            if isinstance(action, Start):
                self._start(action)
            elif action.worker in self.procs:
                self.world.ordered_to_end(action.worker)
                self.procs[action.worker].die(-9)
            else:
                self.book.died(action.worker, now)
        if ended or now >= self._next_beat_s:
            self._next_beat_s = now + 1.0
            self._send(AgentBeat(self.head, (*self._vitals(), *ended)))
        self.world.clockwork.after(POLL_S, self._poll)

    def _start(self, action: Start) -> None:
        for other in self.procs.values():
            gpus = slot_gpus(other.slot)
            shared = max(len(gpus), len(action.gpus)) > 1 and not set(gpus).isdisjoint(action.gpus)
            assert not shared or other.slot in self.book.slots, f"{action.worker} begins on GPUs of {other.id}"
        proc = Proc(self.world, self.id, action.slot, action.worker, 1)
        self.procs[proc.id] = proc
        self.world.procs[proc.id] = proc
        proc.later(self.world.clockwork.rng.uniform(0.2, 0.6), proc.boot)
