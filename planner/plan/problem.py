"""The mixed-integer program as plain arrays: what a solver needs and nothing else."""

from collections.abc import Collection, Mapping

import msgspec
import numpy as np

INF = float("inf")


class Problem(msgspec.Struct):
    """min cost·v, lower ≤ A·v ≤ upper, low ≤ v ≤ high, v integer where ``integer``. A by rows (CSR)."""

    cost: list[float]
    low: list[float]
    high: list[float]
    integer: list[bool]
    starts: list[int]
    index: list[int]
    value: list[float]
    lower: list[float]
    upper: list[float]

    @classmethod
    def empty(cls) -> "Problem":
        """No columns, no rows."""
        return cls([], [], [], [], [0], [], [], [], [])

    def column(self, cost: float = 0.0, high: float = INF, *, integer: bool = False, low: float = 0.0) -> int:
        """A new variable; its number."""
        self.cost.append(cost)
        self.low.append(low)
        self.high.append(high)
        self.integer.append(integer)
        return len(self.cost) - 1

    def row(self, terms: list[tuple[int, float]], lower: float = -INF, upper: float = INF) -> int:
        """A new constraint; its number. No variable twice."""
        self.index.extend(at for at, _ in terms)
        self.value.extend(value for _, value in terms)
        self.starts.append(len(self.index))
        self.lower.append(lower)
        self.upper.append(upper)
        return len(self.lower) - 1

    def relaxed(self, whole: Collection[int]) -> "Problem":
        """The same with these variables alone integer."""
        return msgspec.structs.replace(self, integer=[at in whole for at in range(len(self.cost))])

    def fixed(self, values: Mapping[int, float]) -> "Problem":
        """The same with these variables set."""
        low, high = list(self.low), list(self.high)
        for at, value in values.items():
            low[at] = high[at] = value
        return msgspec.structs.replace(self, low=low, high=high)

    def residual(self, values: np.ndarray) -> float:
        """The worst violation of any row or bound, relative to the size of its limit."""
        sums = np.zeros(len(self.lower))
        rows = np.repeat(np.arange(len(self.lower)), np.diff(self.starts))
        np.add.at(sums, rows, np.array(self.value) * values[np.array(self.index, dtype=int)] if self.index else 0.0)
        worst = 0.0
        for have, low, high in (
            (sums, np.array(self.lower), np.array(self.upper)),
            (values, np.array(self.low), np.array(self.high)),
        ):
            scale = 1 + np.maximum(
                np.where(np.isfinite(low), np.abs(low), 0), np.where(np.isfinite(high), np.abs(high), 0)
            )
            worst = max(worst, float(np.max(np.maximum(low - have, have - high) / scale, initial=0.0)))
        return worst


class Solution(msgspec.Struct):
    """status: optimal | time_limit | infeasible | error. ``seconds``: in the solver. ``values`` empty without a solution."""

    status: str
    objective: float
    gap: float
    seconds: float
    values: list[float]
    solver: str = "highs"

    @property
    def bound(self) -> float:
        """What no solution costs less than."""
        return self.objective * (1 - self.gap)
