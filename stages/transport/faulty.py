"""A fetcher that fails on purpose, by a seed: for tests of everything that has to survive a bad network.

Workers of a service under test wrap theirs when ``DISAGCTL_TEST_FAULTS`` says so (:func:`stages.settings.test_faults`); nothing
else ever sets it.
"""

import random
import threading
import time
from collections.abc import Callable

import msgspec

from stages.parcel import Parcel, ParcelError, verify
from stages.protocol import Offer, Via
from stages.transport.base import Fetcher, FetchError


class Faults(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Probabilities per transfer, each in [0, 1]. What comes inline in a message is no transfer."""

    delay: float = 0.0
    delay_s: float = 0.2
    jitter_s: float = 0.0  # every transfer is late by up to this, evenly spread
    loss: float = 0.0
    flip: float = 0.0  # one bit of one tensor arrives inverted
    truncate: float = 0.0  # the end of one tensor is missing
    tear: float = 0.0  # the end of one tensor is another one's: zeros
    bytes_per_s: float = 0.0  # of all transfers of a process together; 0: no cap
    seed: int = 0


class Cap:
    """A link of so many bytes a second, shared by the fetchers of a process."""

    def __init__(self, bytes_per_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = bytes_per_s
        self._clock = clock
        self._lock = threading.Lock()
        self._free_s = 0.0

    def wait_s(self, nbytes: int) -> float:
        """How long from now until so many more bytes are through."""
        if not self._rate:
            return 0.0
        with self._lock:
            now = self._clock()
            self._free_s = max(now, self._free_s) + nbytes / self._rate
            return self._free_s - now


class FaultyFetcher:
    """Wraps a Fetcher. Damage is done to a copy and then verified like any arrival, so it ends as a FetchError.

    The same seed and the same sequence of fetches give the same faults. Counts what it did in ``injected``.
    """

    def __init__(
        self, inner: Fetcher, faults: Faults, seed: int, sleep: Callable[[float], None], cap: Cap | None = None
    ) -> None:
        self._inner = inner
        self._faults = faults
        self._random = random.Random(seed)  # noqa: S311 - faults to be repeated, not secrets
        self._sleep = sleep
        self._cap = cap or Cap(faults.bytes_per_s)
        self.injected = {"delay": 0, "loss": 0, "flip": 0, "truncate": 0, "tear": 0}

    @property
    def via(self) -> Via | None:
        """The wrapped fetcher's."""
        return self._inner.via

    def fetch(self, offer: Offer, deadline_s: float) -> Parcel:
        """Fetch through the wrapped fetcher, perhaps late, perhaps not at all, never with wrong bytes."""
        faults = self._faults
        # All dice are thrown each time, so that one fault's probability does not shift the others' sequence.
        delay, jitter, loss, flip, truncate, tear = (self._random.random() for _ in range(6))
        late_s = jitter * faults.jitter_s
        if delay < faults.delay:
            self.injected["delay"] += 1
            late_s += faults.delay_s
        late_s = min(deadline_s, late_s + self._cap.wait_s(offer.nbytes))
        if late_s > 0:
            self._sleep(late_s)
        if loss < faults.loss:
            self.injected["loss"] += 1
            msg = f"{offer.key}: lost (injected)"
            raise FetchError(msg)
        parcel = self._inner.fetch(offer, deadline_s - late_s)
        buffers = list(parcel.buffers)
        for kind, drawn in (("flip", flip), ("truncate", truncate), ("tear", tear)):
            if drawn < getattr(faults, kind):
                self._damage(kind, buffers)
        try:
            verify(parcel.tensors, buffers)
        except ParcelError as err:
            msg = f"{offer.key}: {err} (injected)"
            raise FetchError(msg) from err
        return parcel

    def close(self) -> None:
        """Close the wrapped fetcher."""
        self._inner.close()

    def _damage(self, kind: str, buffers: list[memoryview]) -> None:
        filled = [i for i, buffer in enumerate(buffers) if buffer.nbytes]
        if not filled:
            return
        self.injected[kind] += 1
        which = self._random.choice(filled)
        data = bytearray(buffers[which])
        at = self._random.randrange(len(data))
        if kind == "flip":
            data[at] ^= 1 << self._random.randrange(8)
        elif kind == "tear":
            data[at:] = bytes(len(data) - at)
        buffers[which] = memoryview(data)[:at] if kind == "truncate" else memoryview(data)
