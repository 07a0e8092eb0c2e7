"""Which worker processes a node's agent starts and ends: pure, from the head's wishes and what the processes do.

A worker that dies is started again under a new id, after a pause that doubles while it keeps dying young.
"""

from collections.abc import Iterable
from typing import Final

import msgspec

from stages.protocol import WorkerWish

FIRST_PAUSE_S: Final = 0.2
LONGEST_PAUSE_S: Final = 30.0
SETTLED_S: Final = 30.0  # having lived this long, a worker's next death starts with the first pause again


class Start(msgspec.Struct, frozen=True):
    """Start a process for the slot."""

    slot: str
    worker: str
    gpus: tuple[int, ...]


class Kill(msgspec.Struct, frozen=True):
    """End the slot's process, at once: whatever matters was drained before."""

    slot: str
    worker: str


class Slot(msgspec.Struct):
    """One place for a worker process."""

    wish: WorkerWish
    worker: str | None = None
    generation: int = 0  # as the present head counts: a new one begins anew
    deaths: int = 0
    started_s: float = 0.0
    not_before_s: float = 0.0


class SlotBook:
    """The node's slots. A worker's id is never used again: it names the node, which is new with every agent, and counts."""

    def __init__(self, node: str) -> None:
        self.node = node
        self.slots: dict[str, Slot] = {}
        self._doomed: dict[str, WorkerWish] = {}  # worker → what it was started for, of those to be ended
        self._starts: dict[str, int] = {}  # by slot, also of those that come and go

    def wish(self, wishes: Iterable[WorkerWish]) -> None:
        """Replace the list of wishes."""
        wanted = {w.slot: w for w in wishes}
        for name in [n for n in self.slots if n not in wanted]:
            slot = self.slots.pop(name)
            if slot.worker is not None:
                self._doomed[slot.worker] = slot.wish
        for name, wish in wanted.items():
            slot = self.slots.setdefault(name, Slot(wish, generation=wish.generation))
            if wish.generation > slot.generation and slot.worker is not None:
                self._doomed[slot.worker] = slot.wish
                slot.worker = None
            slot.wish, slot.generation = wish, wish.generation

    def died(self, worker: str, now: float) -> None:
        """A worker process has ended."""
        self._doomed.pop(worker, None)
        slot = next((s for s in self.slots.values() if s.worker == worker), None)
        if slot is None:
            return
        slot.worker = None
        slot.deaths = 1 if now - slot.started_s > SETTLED_S else slot.deaths + 1
        slot.not_before_s = now + min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** (slot.deaths - 1))

    def actions(self, now: float) -> list[Start | Kill]:
        """What to do now. Started slots count as filled at once; killed ones until ``died``."""
        out: list[Start | Kill] = [Kill(wish.slot, worker) for worker, wish in self._doomed.items()]
        for name, slot in self.slots.items():
            if slot.worker is not None or now < slot.not_before_s:
                continue
            if not any(in_the_way(wish, slot.wish) for wish in self._doomed.values()):
                self._starts[name] = self._starts.get(name, 0) + 1
                slot.worker, slot.started_s = f"{self.node}.{name}.{self._starts[name]}", now
                out.append(Start(name, slot.worker, slot.wish.gpus))
        return out


def in_the_way(ends: WorkerWish, starts: WorkerWish) -> bool:
    """Whether one worker must have ended before the other starts: in the same slot, or on a GPU that either has whole."""
    whole = max(len(ends.gpus), len(starts.gpus)) > 1
    return ends.slot == starts.slot or (whole and not set(ends.gpus).isdisjoint(starts.gpus))
