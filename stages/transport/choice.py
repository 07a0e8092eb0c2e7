"""Which network transport to take to which host, by what transfers there took: no sockets, no clock.

Small and large transfers are judged apart, for a transport's fixed cost rules the one and its rate the other. Each is tried
a few times, then the fastest is taken, and now and then another one, because networks change.
"""

import threading
from collections import deque
from collections.abc import Sequence
from typing import Final

TRIES: Final = 5  # transfers of each transport before they are compared
AGAIN_EVERY: Final = 64  # so many transfers later another one is tried again,
CLOSE_EVERY: Final = 16  # and sooner when it is not much slower: with few tries, chance decides between those
CLOSE: Final = 1.6
REST: Final = 256  # transfers for which one that failed is not tried by choice
MAX_PAIRS: Final = 1024
REMEMBERED: Final = 8  # transfers of each that are compared


class _Known:
    """About one transport to one host at one size."""

    def __init__(self) -> None:
        self.count = 0
        self.rests_until = 0
        self.seconds = 0.0
        self._last: deque[float] = deque(maxlen=REMEMBERED)

    def observe(self, seconds: float) -> None:
        """``seconds`` becomes the lower quartile of the last ones: what else a machine does only ever makes them longer."""
        if self.count == 1:
            self._last.clear()  # the first one paid for the connection
        self.count += 1
        self._last.append(seconds)
        self.seconds = sorted(self._last)[len(self._last) // 4]


class Chooser:
    """Shared by the fetchers of a process. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[tuple[str, int], dict[str, _Known]] = {}
        self._turns: dict[tuple[str, int], int] = {}

    def order(self, host: str, nbytes: int, names: Sequence[str]) -> tuple[list[str], str]:
        """The transports in the order in which to try them, and why the first is first."""
        if len(names) < 2:
            return list(names), f"the only one to {host}"
        with self._lock:
            pair = (host, _size_class(nbytes))
            table = self._table(pair)
            turn = self._turns[pair] = self._turns.get(pair, 0) + 1
            known = {name: table.setdefault(name, _Known()) for name in names}
            fit = [name for name in names if known[name].rests_until <= turn] or list(names)
            untried = [name for name in fit if known[name].count < TRIES]
            if untried:
                first, why = min(untried, key=lambda name: known[name].count), "being measured"
            else:
                ranked = sorted(fit, key=lambda name: known[name].seconds)
                first = ranked[0]
                second = known[ranked[min(1, len(ranked) - 1)]].seconds
                every = CLOSE_EVERY if second < CLOSE * known[first].seconds else AGAIN_EVERY
                if turn % every == 0 and len(ranked) > 1:
                    first, why = ranked[1 + turn // every % (len(ranked) - 1)], "measured again"
                else:
                    rates = (f"{name} {_rate(nbytes, known[name].seconds)}" for name in ranked)
                    why = f"{_size(nbytes)} to {host}: {', '.join(rates)}"
        return [first, *(name for name in names if name != first)], why

    def succeeded(self, host: str, nbytes: int, name: str, seconds: float) -> None:
        """A transfer took so long."""
        with self._lock:
            self._table((host, _size_class(nbytes))).setdefault(name, _Known()).observe(seconds)

    def failed(self, host: str, nbytes: int, name: str) -> None:
        """A transfer brought nothing."""
        with self._lock:
            pair = (host, _size_class(nbytes))
            known = self._table(pair).setdefault(name, _Known())
            known.rests_until = self._turns.get(pair, 0) + REST

    def _table(self, pair: tuple[str, int]) -> dict[str, _Known]:
        if pair not in self._known and len(self._known) >= MAX_PAIRS:
            oldest = next(iter(self._known))
            del self._known[oldest]
            self._turns.pop(oldest, None)
        return self._known.setdefault(pair, {})


def _size_class(nbytes: int) -> int:
    """Sizes within a factor of four are one class."""
    return nbytes.bit_length() // 2


def _size(nbytes: int) -> str:
    return f"{nbytes / (1 << 20):.1f} MiB" if nbytes >= 1 << 20 else f"{nbytes / 1024:.0f} KiB"


def _rate(nbytes: int, seconds: float) -> str:
    return f"{nbytes / max(seconds, 1e-9) / 1e6:.0f} MB/s"
