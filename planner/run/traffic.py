"""What arrives: how fast, how irregularly, and in which mix. Bounded; a model at a time.

The rate is smoothed, not watched for changes: detectors in arrival times either sleep or cry wolf at a few requests a minute.
"""

import math
from typing import Final

import msgspec

from planner.domain import Shape

LEAST_TAU_S: Final = 60.0
MOST_TAU_S: Final = 600.0
ARRIVALS: Final = 20.0  # that the smoothed rate rests on
HALF_LIFE: Final = 48.0  # requests, of the mix
MOST_SHAPES: Final = 64
RECENT: Final = 256


class Rate(msgspec.Struct):
    """Exponentially weighted rate of events, corrected for a short past; and the squared variation of their gaps."""

    begun_s: float | None = None
    last_s: float = 0.0
    tau_s: float = LEAST_TAU_S
    weight: float = 0.0  # decayed count over tau
    gap: float = 0.0
    gap2: float = 0.0
    gaps: int = 0

    def add(self, now: float, count: int = 1) -> None:
        """Events at ``now``. Only single ones tell of gaps."""
        if self.begun_s is None:
            self.begun_s = self.last_s = now
            self.weight = count / self.tau_s
            return
        gap = max(now - self.last_s, 0.0)
        self.gaps += 1
        gain = max(1 / self.gaps, 1 / ARRIVALS / 2)
        self.gap += (gap - self.gap) * gain
        self.gap2 += (gap * gap - self.gap2) * gain
        wanted = min(max(ARRIVALS * self.gap, LEAST_TAU_S), MOST_TAU_S)
        self.weight *= math.exp(-gap / self.tau_s)
        self.weight *= self.tau_s / wanted  # the count stays what it is
        self.tau_s = wanted
        self.weight += count / self.tau_s
        self.last_s = max(now, self.last_s)

    def per_s(self, now: float) -> float:
        """Events a second, now."""
        if self.begun_s is None:
            return 0.0
        age = max(now - self.begun_s, LEAST_TAU_S)  # two requests in a second are no rate of two a second
        return self.weight * math.exp(-max(now - self.last_s, 0.0) / self.tau_s) / (1 - math.exp(-age / self.tau_s))

    def cv2(self) -> float:
        """Squared coefficient of variation of the gaps; 1 (Poisson) until there are some."""
        if self.gaps < ARRIVALS or self.gap <= 0:
            return 1.0
        return min(max(self.gap2 / self.gap**2 - 1, 0.1), 16.0)


class Mix(msgspec.Struct):
    """Shares of shapes among the last requests, halved every HALF_LIFE of them. Forgets what came before a change."""

    weights: dict[Shape, float] = {}
    recent: list[Shape] = []

    def add(self, shape: Shape, count: int = 1) -> None:
        """So many requests more."""
        scale = 2 ** (-count / HALF_LIFE)
        for known in self.weights:
            self.weights[known] *= scale
        self.weights[shape] = self.weights.get(shape, 0.0) + (
            1.0 if count == 1 else (1 - scale) * HALF_LIFE / math.log(2)
        )
        if len(self.weights) > MOST_SHAPES:
            del self.weights[min(self.weights, key=self.weights.__getitem__)]
        self.recent += [shape] * min(count, RECENT)
        if len(self.recent) > 2 * RECENT:
            del self.recent[:-RECENT]

    def restart(self, since: int) -> None:
        """Only the last ``since`` requests count."""
        last = self.recent[-max(since, 1) :]
        self.weights, self.recent = {}, []
        for shape in last:
            self.add(shape)

    def shares(self) -> dict[Shape, float]:
        """They sum to 1; empty before the first request."""
        total = sum(self.weights.values())
        return {shape: weight / total for shape, weight in self.weights.items()} if total > 0 else {}
