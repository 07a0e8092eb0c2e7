"""Service times as they really are: the profiles, corrected by what was measured.

Two corrections, the finer where there is enough: a moving mean of the seconds of (role, accelerator, shape), and a moving
mean of log(measured / predicted) of (role, accelerator) for shapes that were not seen yet. A worker's first task in a role
compiles and warms caches: it does not count. Three samples in a row that are off to the same side by a third start the mean
anew, so that a lasting change is learnt at once and not forgotten sample by sample.
"""

import math
from collections import OrderedDict
from typing import Final

import msgspec

from planner.domain import Role, Shape
from planner.run.config import Predict
from planner.run.observe import Completion

GAIN: Final = 0.1
SURPRISE: Final = math.log(4 / 3)
SURPRISES: Final = 3
ENOUGH: Final = 2  # samples after which a shape's own mean is believed
WIDEST: Final = math.log(20.0)  # a profile is corrected by this much at most
MOST_SHAPES: Final = 512


class Mean(msgspec.Struct):
    """A moving mean of logarithms: the plain mean at first, then with a fixed gain."""

    value: float = 0.0
    count: int = 0
    odd: int = 0  # samples in a row off to one side: its sign is theirs
    odd_sum: float = 0.0

    def add(self, sample: float, count: int = 1) -> None:
        """Take in so many samples with this mean."""
        off = sample - self.value
        if self.count and abs(off) > SURPRISE:
            if (self.odd > 0) != (off > 0):
                self.odd, self.odd_sum = 0, 0.0
            self.odd += count if off > 0 else -count
            self.odd_sum += sample * count
            if abs(self.odd) >= SURPRISES:
                self.value, self.count, self.odd, self.odd_sum = self.odd_sum / abs(self.odd), abs(self.odd), 0, 0.0
                return
        else:
            self.odd, self.odd_sum = 0, 0.0
        self.count += count
        self.value += off * max(1 - (1 - GAIN) ** count, count / self.count)


class Timings:
    """Seconds of a stage. ``predict``: the profiles. Bounded: the shapes seen last are kept."""

    def __init__(self, predict: Predict) -> None:
        self._predict = predict
        self._ratio: dict[tuple[Role, str], Mean] = {}
        self._shapes: OrderedDict[tuple[Role, str, Shape], Mean] = OrderedDict()
        self._prior: dict[tuple[Role, str, Shape], float | None] = {}

    def add(self, done: Completion) -> None:
        """Stages were computed."""
        key = (done.role, done.accelerator, done.shape)
        if done.first and (key in self._shapes or self._expected(key) is not None):
            return
        self._shapes.setdefault(key, Mean()).add(done.log_s, done.count)
        self._shapes.move_to_end(key)
        if len(self._shapes) > MOST_SHAPES:
            self._shapes.popitem(last=False)
        prior = self._expected(key)
        if prior is not None:
            off = min(max(done.log_s - math.log(prior), -WIDEST), WIDEST)
            self._ratio.setdefault(key[:2], Mean()).add(off, done.count)

    def seconds(self, role: Role, accelerator: str, shape: Shape) -> float | None:
        """What is to be expected; None when nothing is known of the role on that accelerator."""
        key = (role, accelerator, shape)
        seen = self._shapes.get(key)
        if seen is not None and seen.count >= ENOUGH:
            return math.exp(seen.value)
        prior = self._expected(key)
        if prior is not None:
            return prior * self.correction(role, accelerator)
        if seen is not None:
            return math.exp(seen.value)
        near = [math.exp(mean.value) for (r, a, _), mean in self._shapes.items() if (r, a) == (role, accelerator)]
        return sum(near) / len(near) if near else None

    def measured(self) -> list[tuple[Role, str, Shape, float]]:
        """Everything that was measured often enough to be believed, in seconds."""
        return [(*key, math.exp(mean.value)) for key, mean in self._shapes.items() if mean.count >= ENOUGH]

    def profiled(self, role: Role, accelerator: str, shape: Shape) -> float | None:
        """What the profiles say."""
        return self._expected((role, accelerator, shape))

    def correction(self, role: Role, accelerator: str) -> float:
        """Measured over predicted."""
        ratio = self._ratio.get((role, accelerator))
        return math.exp(ratio.value) if ratio is not None else 1.0

    def corrections(self) -> dict[tuple[Role, str], float]:
        """All of them, for whoever watches."""
        return {key: math.exp(mean.value) for key, mean in self._ratio.items()}

    def _expected(self, key: tuple[Role, str, Shape]) -> float | None:
        if key not in self._prior:
            if len(self._prior) >= MOST_SHAPES:
                self._prior.clear()
            found = self._predict(*key)
            self._prior[key] = found if found is not None and found > 0 else None
        return self._prior[key]

    def dump(self) -> list[tuple[Role, str, Shape, float, int]]:
        """The shapes' means, for the store."""
        return [(*key, mean.value, mean.count) for key, mean in self._shapes.items()]

    def load(self, rows: list[tuple[Role, str, Shape, float, int]]) -> None:
        """Take up what :meth:`dump` said."""
        for role, accelerator, shape, value, count in rows[-MOST_SHAPES:]:
            self._shapes[role, accelerator, shape] = Mean(value, count)
            prior = self._expected((role, accelerator, shape))
            if prior is not None:
                self._ratio.setdefault((role, accelerator), Mean()).add(value - math.log(prior))
