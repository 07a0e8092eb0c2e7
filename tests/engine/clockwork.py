"""Virtual time, and one direction of a link that delays, loses, keeps back and repeats frames. Deterministic by its seed."""

import heapq
import itertools
import random
from collections import deque
from collections.abc import Callable

Call = Callable[[], None]


class Clockwork:
    """A heap of what happens when. Nothing here waits."""

    def __init__(self, seed: int) -> None:
        self.now = 0.0
        self.rng = random.Random(seed)
        self._heap: list[tuple[float, int, Call]] = []
        self._count = itertools.count()

    def at(self, when: float, call: Call) -> None:
        heapq.heappush(self._heap, (max(when, self.now), next(self._count), call))

    def after(self, delay: float, call: Call) -> None:
        self.at(self.now + delay, call)

    def run(self, until: float) -> None:
        """Let everything happen that is due by then."""
        heap = self._heap
        while heap and heap[0][0] <= until:
            self.now, _, call = heapq.heappop(heap)
            call()
        self.now = until


class Channel:
    """Frames one way, in order. ``deliver`` may change when the receiver is another process than before."""

    def __init__(self, clockwork: Clockwork, deliver: Callable[[bytes], None]) -> None:
        self._clockwork, self._deliver = clockwork, deliver
        self.latency_s = 0.0005
        self.loss = 0.0
        self.shut = False  # the receiver is away, or the wire is cut
        self.keeps = False  # what is sent meanwhile waits, as in a DEALER that reconnects; else it is lost
        self.lost = 0
        self._kept: list[bytes] = []
        self._last_s = 0.0
        self._era = 0
        self._past: deque[bytes] = deque(maxlen=30)

    def send(self, frame: bytes) -> None:
        if self.shut:
            if self.keeps:
                self._kept.append(frame)
            else:
                self.lost += 1
            return
        rng = self._clockwork.rng
        if self.loss and rng.random() < self.loss:
            self.lost += 1
            return
        self._last_s = max(self._last_s, self._clockwork.now + self.latency_s * (0.5 + rng.random()))
        era = self._era
        self._clockwork.at(self._last_s, lambda: self._arrive(frame, era))

    def shut_down(self, *, keeps: bool) -> None:
        """Whatever is on its way is lost; from now on frames wait or are lost."""
        self.shut, self.keeps = True, keeps
        self._era += 1

    def open_up(self) -> None:
        if self.shut:
            self.shut = False
            kept, self._kept = self._kept, []
            for frame in kept:
                self.send(frame)

    def replay(self) -> None:
        """An old frame comes again: it cannot over CURVE and TCP, and must be harmless all the same."""
        if self._past and not self.shut:
            self._deliver(self._clockwork.rng.choice(self._past))

    def _arrive(self, frame: bytes, era: int) -> None:
        if era == self._era:
            self._past.append(frame)
            self._deliver(frame)
