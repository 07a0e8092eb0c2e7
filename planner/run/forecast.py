"""The rate some minutes ahead. Each forecaster must beat "as it is now" on the past before it is believed.

Simple and seasonal exponential smoothing on log(1 + count): R. J. Hyndman, G. Athanasopoulos, "Forecasting: Principles and
Practice", 3rd ed., chapter 8 (Holt–Winters' damped additive method).
"""

import math
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

Forecaster = Callable[..., float]
"""(counts a bin so far, bins ahead) → count of that bin."""

BIN_S: Final = 1800.0
DAY_BINS: Final = 48
MOST_BINS: Final = 14 * DAY_BINS
LEAST_BINS: Final = 24  # forecasts that must have come due before one is believed
FORGET: Final = 0.98  # of the errors, a bin
BETTER: Final = 0.95  # its error over the naive one's, at most
EWMA_GAIN: Final = 0.6
LEVEL, TREND, SEASON, DAMPED = 0.35, 0.02, 0.25, 0.9


def naive(counts: Sequence[float], ahead: int) -> float:
    """As it is now."""
    del ahead
    return counts[-1]


def ewma(counts: Sequence[float], ahead: int) -> float:
    """Simple exponential smoothing; old bins weigh less than a thousandth and are left out."""
    del ahead
    level = counts[max(0, len(counts) - 10)]
    for count in counts[max(0, len(counts) - 9) :]:
        level += EWMA_GAIN * (count - level)
    return level


def holt_winters(counts: Sequence[float], ahead: int, season: int) -> float:
    """Level, damped trend and a season of so many bins. Falls back on :func:`ewma` before two seasons have passed."""
    if len(counts) < 2 * season:
        return ewma(counts, ahead)
    logs = [math.log1p(count) for count in counts]
    level = sum(logs[:season]) / season
    pattern = [value - level for value in logs[:season]]
    trend = 0.0
    for index in range(season, len(logs)):
        slot = index % season
        before = level
        level = LEVEL * (logs[index] - pattern[slot]) + (1 - LEVEL) * (level + DAMPED * trend)
        trend = TREND * (level - before) + (1 - TREND) * DAMPED * trend
        pattern[slot] = SEASON * (logs[index] - level) + (1 - SEASON) * pattern[slot]
    reach = sum(DAMPED**step for step in range(1, ahead + 1))
    return max(math.expm1(level + reach * trend + pattern[(len(logs) + ahead - 1) % season]), 0.0)


class Trend:
    """A rate's history in bins, and what it will be ``ahead`` bins on. Every forecaster forecasts every bin; the one whose past
    forecasts were best is believed, and none unless it beat the naive one by a twentieth."""

    def __init__(self, ahead: int = 1, seasons: Sequence[int] = (DAY_BINS,)) -> None:
        self._ahead = max(ahead, 1)
        self._known: dict[str, Forecaster] = {"naive": naive, "ewma": ewma}
        self._known |= {f"holt-winters {season}": partial(holt_winters, season=season) for season in seasons}
        self._counts: deque[float] = deque(maxlen=MOST_BINS)
        self._said: dict[str, deque[float]] = {name: deque(maxlen=self._ahead) for name in self._known}
        self._missed = dict.fromkeys(self._known, 0.0)
        self._judged = 0
        self._open: tuple[float, int] | None = None  # begin and count of the bin that is not over

    def at(self, now: float, count: int) -> None:
        """So many arrivals since the last call."""
        begin, so_far = self._open or (now, 0)
        while now - begin >= BIN_S:
            self.add(so_far)
            begin, so_far = begin + BIN_S, 0
        self._open = (begin, so_far + count)

    def add(self, count: float) -> None:
        """A bin is over."""
        full = len(self._said["naive"]) == self._ahead
        for name, said in self._said.items():
            if full:
                self._missed[name] = self._missed[name] * FORGET + abs(said[0] - count)
        self._judged += full
        self._counts.append(count)
        history = list(self._counts)
        for name, forecaster in self._known.items():
            self._said[name].append(forecaster(history, self._ahead))

    @property
    def best(self) -> str:
        """Which forecaster is believed."""
        name = min(self._missed, key=self._missed.__getitem__)
        trusted = self._judged >= LEAST_BINS and self._missed[name] < BETTER * self._missed["naive"]
        return name if trusted else "naive"

    def per_s(self) -> float | None:
        """The rate to come; None where nobody knows better than what is now."""
        return None if self.best == "naive" else self._said[self.best][-1] / BIN_S
