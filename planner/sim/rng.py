"""Random numbers that are the same everywhere and for ever: SplitMix64 (Steele, Lea, Flood, OOPSLA 2014).

Streams are split by name, so that one more draw here changes nothing there.
"""

import math
from typing import Final

_MASK: Final = (1 << 64) - 1
_GOLDEN: Final = 0x9E3779B97F4A7C15


class Rng:
    """A stream. Not for secrets."""

    def __init__(self, seed: int, name: str = "") -> None:
        self._state = seed & _MASK
        for byte in name.encode():
            self._state = ((self._state ^ byte) * 0x100000001B3) & _MASK  # FNV-1a
        self._spare: float | None = None

    def split(self, name: str) -> "Rng":
        """A stream of its own."""
        return Rng(self._state, name)

    def bits(self) -> int:
        """64 of them."""
        self._state = (self._state + _GOLDEN) & _MASK
        mixed = self._state
        mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & _MASK
        return mixed ^ (mixed >> 31)

    def uniform(self) -> float:
        """In [0, 1)."""
        return (self.bits() >> 11) * 2.0**-53

    def exponential(self, mean: float) -> float:
        """Time until the next of a Poisson process' events."""
        return -mean * math.log(1.0 - self.uniform())

    def normal(self) -> float:
        """Standard normal (Box and Muller)."""
        if self._spare is not None:
            found, self._spare = self._spare, None
            return found
        radius = math.sqrt(-2.0 * math.log(1.0 - self.uniform()))
        angle = 2.0 * math.pi * self.uniform()
        self._spare = radius * math.sin(angle)
        return radius * math.cos(angle)

    def lognormal(self, median: float, sigma: float) -> float:
        """``sigma``: standard deviation of the logarithm; 0: the median itself."""
        return median * math.exp(sigma * self.normal()) if sigma > 0 else median

    def gamma(self, shape: float, mean: float) -> float:
        """Gamma with that mean (Marsaglia and Tsang, 2000; below 1 by their boost)."""
        if shape < 1:
            return self.gamma(shape + 1, mean * (shape + 1) / shape) * math.pow(self.uniform(), 1 / shape)
        d = shape - 1 / 3
        c = 1 / math.sqrt(9 * d)
        while True:
            x = self.normal()
            v = (1 + c * x) * (1 + c * x) * (1 + c * x)
            if v > 0 and math.log(1.0 - self.uniform()) < 0.5 * x * x + d - d * v + d * math.log(v):
                return d * v * mean / shape
