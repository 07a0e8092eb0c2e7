"""Has the work that requests bring changed? A two-sided CUSUM on its logarithm.

E. S. Page, "Continuous inspection schemes", Biometrika 41 (1954); the reference value k and the decision interval h are
in standard deviations, as in Hawkins & Olwell, "Cumulative Sum Charts" (1998). Each deviation is clipped, so that no single
odd request raises an alarm. ``bench/control.py`` measures its delay and its false alarms.
"""

import math
from typing import Final

import msgspec

SLACK: Final = 0.5  # k: drifts of less than this many standard deviations are let be
LIMIT: Final = 8.0  # h
WARM: Final = 30  # samples that make the baseline
CLIP: Final = 3.0
LEAST_SD: Final = 0.05  # of a logarithm: 5 % is no change, however steady it was before
MEMORY: Final = 500  # samples after which the baseline stops to slow down


class Cusum(msgspec.Struct):
    """Watches one sequence. ``since``: samples since the change began, as far as can be told; 0 in quiet times."""

    count: int = 0
    mean: float = 0.0
    square: float = 0.0  # Welford's sum of squared deviations
    high: float = 0.0
    low: float = 0.0
    since_high: int = 0
    since_low: int = 0

    def add(self, value: float) -> int:
        """Take in a sample (its logarithm, natural). Returns how many samples ago a change began, 0: none.

        After an alarm the baseline is learnt anew, from the samples since the change.
        """
        if self.count < WARM:
            self._learn(value)
            return 0
        spread = max(math.sqrt(self.square / (self.count - 1)), LEAST_SD)
        step = min(max((value - self.mean) / spread, -CLIP), CLIP)
        self.high = max(0.0, self.high + step - SLACK)
        self.low = max(0.0, self.low - step - SLACK)
        self.since_high = self.since_high + 1 if self.high > 0 else 0
        self.since_low = self.since_low + 1 if self.low > 0 else 0
        if max(self.high, self.low) > LIMIT:
            since = self.since_high if self.high >= self.low else self.since_low
            self.restart()
            return since
        self._learn(value)
        return 0

    def restart(self) -> None:
        """Forget the baseline."""
        self.count = self.since_high = self.since_low = 0
        self.mean = self.square = self.high = self.low = 0.0

    def _learn(self, value: float) -> None:
        if self.count >= MEMORY:
            self.square *= (MEMORY - 1) / self.count
            self.count = MEMORY - 1
        self.count += 1
        off = value - self.mean
        self.mean += off / self.count
        self.square += off * (value - self.mean)
