"""A fetcher that fails on purpose, by a seed: for tests of everything that has to survive a bad network."""

import random
from collections.abc import Callable
from dataclasses import dataclass

from stages.parcel import Parcel, ParcelError, verify
from stages.protocol import Offer
from stages.transport.base import Fetcher, FetchError


@dataclass(frozen=True, slots=True)
class Faults:
    """Probabilities per transfer, each in [0, 1]."""

    delay: float = 0.0
    delay_s: float = 0.2
    loss: float = 0.0
    flip: float = 0.0  # one bit of one tensor arrives inverted
    truncate: float = 0.0  # the end of one tensor is missing


class FaultyFetcher:
    """Wraps a Fetcher. Damage is done to a copy and then verified like any arrival, so it ends as a FetchError.

    The same seed and the same sequence of fetches give the same faults. Counts what it did in ``injected``.
    """

    def __init__(self, inner: Fetcher, faults: Faults, seed: int, sleep: Callable[[float], None]) -> None:
        self._inner = inner
        self._faults = faults
        self._random = random.Random(seed)  # noqa: S311 - faults to be repeated, not secrets
        self._sleep = sleep
        self.injected = {"delay": 0, "loss": 0, "flip": 0, "truncate": 0}

    def fetch(self, offer: Offer, deadline_s: float) -> Parcel:
        """Fetch through the wrapped fetcher, perhaps late, perhaps not at all, never with wrong bytes."""
        # All dice are thrown each time, so that one fault's probability does not shift the others' sequence.
        delay, loss, flip, truncate = (self._random.random() for _ in range(4))
        if delay < self._faults.delay:
            self.injected["delay"] += 1
            self._sleep(min(self._faults.delay_s, deadline_s))
            deadline_s = max(0.0, deadline_s - self._faults.delay_s)
        if loss < self._faults.loss:
            self.injected["loss"] += 1
            msg = f"{offer.key}: lost (injected)"
            raise FetchError(msg)
        parcel = self._inner.fetch(offer, deadline_s)
        buffers = list(parcel.buffers)
        if flip < self._faults.flip:
            self._damage("flip", buffers)
        if truncate < self._faults.truncate:
            self._damage("truncate", buffers)
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
            buffers[which] = memoryview(data)
        else:
            buffers[which] = memoryview(data)[:at]
