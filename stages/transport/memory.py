"""Memory slots for tensors that are used again: the pages are there already, and an engine registers them only once.

Fresh pages are what moving a tensor costs most: the kernel zeroes each one before it is overwritten. A slot comes back by
itself when the last view of it is gone, so nobody has to say when a tensor made on it is no longer needed.
"""

import mmap
import threading
import weakref
from collections import deque
from collections.abc import Callable
from typing import Final

import numpy as np

SLOT_STEP: Final = 1 << 16  # slots are multiples of this long
MAX_WASTE: Final = 2  # a free slot up to so many times too large is taken rather than making one

Hook = Callable[[int, int], None]
"""(address, bytes)"""


def address_of(view: memoryview) -> int:
    """Where a non-empty view begins."""
    return int(np.frombuffer(view, np.uint8).__array_interface__["data"][0])


def copy(target: memoryview, source: memoryview) -> None:
    """Copy bytes without holding the interpreter's lock, which a slice assignment would."""
    if source.nbytes:
        np.copyto(np.frombuffer(target, np.uint8), np.frombuffer(source, np.uint8))


class SlotPool:
    """At most ``limit_bytes`` in slots, free ones included. Thread-safe."""

    def __init__(self, limit_bytes: int, *, on_new: Hook | None = None, on_drop: Hook | None = None) -> None:
        """``on_new`` and ``on_drop`` are told of every slot before its first use and before it is given up."""
        self._limit = limit_bytes
        self._on_new, self._on_drop = on_new, on_drop
        self._lock = threading.Lock()
        self._free: list[mmap.mmap] = []
        # Slots come back from the garbage collector, which may run while we hold the lock: it only leaves them here.
        self._returned: deque[mmap.mmap] = deque()
        self.bytes = 0

    def take(self, nbytes: int) -> memoryview | None:
        """A writable slot of exactly this length; None when the pool is full. What is in it is arbitrary."""
        size = max(1, -(-nbytes // SLOT_STEP)) * SLOT_STEP
        with self._lock:
            self._collect()
            slot = self._fitting(size) or self._make(size)
        if slot is None:
            return None
        owner = np.frombuffer(slot, np.uint8)
        weakref.finalize(owner, self._returned.append, slot).atexit = False
        return owner.data[:nbytes]

    def _collect(self) -> None:
        while self._returned:
            self._free.append(self._returned.popleft())

    def _fitting(self, size: int) -> mmap.mmap | None:
        best = min((slot for slot in self._free if size <= len(slot) <= MAX_WASTE * size), key=len, default=None)
        if best is not None:
            self._free.remove(best)
        return best

    def _make(self, size: int) -> mmap.mmap | None:
        while self._free and self.bytes + size > self._limit:
            self._drop(self._free.pop(0))
        if self.bytes + size > self._limit:
            return None
        try:
            slot = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        except OSError:
            return None
        if self._on_new is not None:
            self._on_new(address_of(memoryview(slot)), size)
        self.bytes += size
        return slot

    def _drop(self, slot: mmap.mmap) -> None:
        if self._on_drop is not None:
            self._on_drop(address_of(memoryview(slot)), len(slot))
        self.bytes -= len(slot)
        slot.close()
