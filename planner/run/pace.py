"""How long a step takes on so many of a worker's own GPUs, as its workers tell of their steps. Bounded."""

from collections import OrderedDict
from typing import Final

from planner.domain import Role, Shape

Key = tuple[Role, str, Shape, int]
"""role, accelerator, shape, GPUs"""

ENOUGH: Final = 3  # measurements that are believed
GAIN: Final = 0.2  # of a new one in the mean, once there are as many as its inverse
MOST: Final = 4096  # keys, those seen last


class Pace:
    """Moving means, in seconds."""

    def __init__(self) -> None:
        self._means: OrderedDict[Key, tuple[float, int]] = OrderedDict()

    def add(self, key: Key, seconds: float) -> bool:
        """One more step was measured. Whether there are enough of them just now."""
        mean, count = self._means.get(key, (0.0, 0))
        count += 1
        self._means[key] = (mean + max(GAIN, 1 / count) * (seconds - mean), count)
        self._means.move_to_end(key)
        if len(self._means) > MOST:
            self._means.popitem(last=False)
        return count == ENOUGH

    def step_s(self, key: Key) -> float | None:
        """The mean; None: it was not measured often enough."""
        mean, count = self._means.get(key, (0.0, 0))
        return mean if count >= ENOUGH else None
