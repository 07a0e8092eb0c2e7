"""Who gets the next task: per role a queue of waiting requests and a pool of workers with credit.

Both are indexed so that no message costs a scan over requests or workers. First come, first served within a priority;
a request keeps its place in line through all its stages, and when it is tried again.
"""

import heapq
import math
from collections.abc import Iterator
from itertools import islice
from typing import Final

import msgspec

from planner.domain import Role, TaskRef

MAX_SLOTS: Final = 64
AHEAD_S: Final = 0.02  # enough work to bridge a round trip to the head, when tasks are shorter than that
SHORTEST_S: Final = AHEAD_S / MAX_SLOTS  # from here down the most that there is
MAX_AHEAD: Final = 16  # tasks held ahead because their tensors take long: each of them is memory
NONE: Final = -1
STALE_ENTRIES: Final = 256  # of requests that no longer wait, in a queue that nobody pops
LATE: Final = 4.0  # mean deviations above the mean, as late as a transfer is expected to be (as TCP's timer, RFC 6298)


class Waiting:
    """Requests waiting for one role, in order of (priority, arrival)."""

    __slots__ = ("_heap", "_live")

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, str]] = []
        self._live: set[str] = set()

    def __len__(self) -> int:
        return len(self._live)

    def __iter__(self) -> Iterator[str]:
        return iter(self._live)

    def __contains__(self, request: object) -> bool:
        return request in self._live

    def push(self, request: str, priority: int, seq: int) -> None:
        """Add; a request already waiting stays where it is."""
        if request not in self._live:
            self._live.add(request)
            heapq.heappush(self._heap, (-priority, seq, request))

    def discard(self, request: str) -> None:
        """Take out, if it is there. Its heap entry is skipped when it surfaces, or goes when most are such."""
        self._live.discard(request)
        if len(self._heap) > 2 * len(self._live) + STALE_ENTRIES:
            self._heap = sorted({entry for entry in self._heap if entry[2] in self._live})

    def pop(self) -> str | None:
        """The first in line."""
        while self._heap:
            request = heapq.heappop(self._heap)[2]
            if request in self._live:
                self._live.discard(request)
                return request
        return None


class Worker(msgspec.Struct):
    """A worker as the dispatcher knows it. ``leases``: request id → epoch, oldest first."""

    id: str
    role: Role
    prefetch: int
    seen_s: float
    draining: bool = False
    loading: Role | None = None  # what it is to be when it has drained
    accelerator: str = ""
    gpus: int = 1  # that it can spread a task over
    preemptible: bool = False  # its tasks can be paused between two steps
    leases: dict[str, int] = msgspec.field(default_factory=dict)
    outputs: dict[str, str] = msgspec.field(default_factory=dict)  # key → request id
    computing: TaskRef | None = None  # what it started last: it computes one task at a time
    seconds: float | None = None  # moving mean of compute time
    fetch_s: float = 0.0  # moving mean of the time an input takes to arrive, and of how far it is off that
    fetch_off_s: float = 0.0
    batch: int = 1  # tasks that it may compute at once

    @property
    def slots(self) -> int:
        """Tasks it may hold: one computing, and so many ahead that the next input is there when it is done.

        That is at least ``prefetch``, more when tasks are shorter than a round trip or than a late transfer; 0 stays 0. Where
        tasks are batched: a batch computing, and the next one gathering behind it.
        """
        if self.draining:
            return 0
        ahead = self.prefetch
        if ahead and self.seconds is not None:
            if self.seconds <= SHORTEST_S:
                return 1 + max(ahead, MAX_SLOTS - 1)
            seconds = self.seconds
            if seconds < AHEAD_S:
                ahead = max(ahead, min(MAX_SLOTS - 1, int(AHEAD_S / seconds)))
            late_s = self.fetch_s + LATE * self.fetch_off_s
            ahead = max(ahead, min(MAX_AHEAD, math.ceil(late_s / seconds) + 1 if late_s else 0))
        if self.batch > 1:
            return min(MAX_SLOTS, self.batch + max(ahead, self.batch if ahead else 0))
        return 1 + ahead

    def observe(self, seconds: float, fetch_s: float = 0.0) -> None:
        """Take a measured compute time, and the time its input took (0: it was in the message), into the means."""
        self.seconds = seconds if self.seconds is None else 0.8 * self.seconds + 0.2 * seconds
        off = abs(fetch_s - self.fetch_s)
        self.fetch_off_s += (off - self.fetch_off_s) / 8
        self.fetch_s += (fetch_s - self.fetch_s) / 8


class Pool:
    """Workers of one role that have credit, by how many tasks they hold."""

    __slots__ = ("_buckets", "_least", "_seats", "total_load", "total_slots", "workers")

    def __init__(self) -> None:
        self._buckets: list[dict[str, Worker]] = [{} for _ in range(MAX_SLOTS + 1)]
        self._least = 0  # all buckets below this one are empty
        self._seats: dict[str, list[int]] = {}  # worker → its slots, its load, its bucket or NONE
        self.total_slots = 0  # of all workers placed, with and without credit
        self.total_load = 0  # tasks out with them
        self.workers = 0  # those that take tasks

    def place(self, worker: Worker) -> None:
        """Put the worker where its load now belongs; without credit it is in no bucket."""
        name, load, slots = worker.id, len(worker.leases), worker.slots
        seat = self._seats.get(name)
        if seat is None:
            seat = self._seats[name] = [0, 0, NONE]
        had_slots, had_load, old = seat
        if slots != had_slots:
            self.total_slots += slots - had_slots
            self.workers += (slots > 0) - (had_slots > 0)
            seat[0] = slots
        self.total_load += load - had_load
        bucket = load if load < slots else NONE
        if old != NONE:
            del self._buckets[old][name]
        if bucket != NONE:
            self._buckets[bucket][name] = worker
            self._least = min(self._least, bucket)
        seat[1], seat[2] = load, bucket

    def remove(self, worker_id: str) -> None:
        """Forget the worker."""
        slots, load, old = self._seats.pop(worker_id, (0, 0, NONE))
        self.total_slots -= slots
        self.workers -= slots > 0
        self.total_load -= load
        if old != NONE:
            del self._buckets[old][worker_id]

    def pick(self, avoid: set[str]) -> Worker | None:
        """The least loaded worker, one that is not to be avoided if there is such a one with credit."""
        while not self._buckets[self._least]:
            if self._least == MAX_SLOTS:
                return None
            self._least += 1
        fallback = None
        if not avoid:
            return next(iter(self._buckets[self._least].values()))
        for bucket in islice(self._buckets, self._least, None):
            for worker in bucket.values():
                if worker.id not in avoid:
                    return worker
                fallback = fallback or worker
        return fallback
