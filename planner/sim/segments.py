"""When a recorded trace changes its mix: binary segmentation on the logarithm of each request's pixel-steps.

A. J. Scott, M. Knott, "A cluster analysis method for grouping means in the analysis of variance", Biometrics 30 (1974), with a
penalty of the Schwarz kind for every cut. For the oracle, which may look at the whole trace; the policy has its own detector.
"""

import itertools
import math
from collections.abc import Sequence
from typing import Final

from planner.sim.scenario import Trace

LEAST: Final = 8  # requests in a segment
MOST: Final = 64  # cuts
PENALTY: Final = 3.0

_Sums = tuple[list[float], list[float]]


def segments(trace: Trace) -> tuple[float, ...]:
    """Arrival times at which a segment begins, the first one left out."""
    values = [math.log(r.shape.steps * r.shape.width * r.shape.height * r.shape.frames) for r in trace.rows]
    if len(values) < 2 * LEAST:
        return ()
    sums = _sums(values)
    steps = [after - before for before, after in itertools.pairwise(values)]
    spread = max(
        sum(step * step for step in steps) / len(steps) / 2, 1e-3
    )  # of what is no change: from neighbour to neighbour
    cuts: list[int] = []
    _cut(sums, (0, len(values)), PENALTY * math.log(len(values)) * spread, cuts)
    return tuple(trace.rows[index].at_s for index in sorted(cuts))


def _sums(values: Sequence[float]) -> _Sums:
    first, second = [0.0], [0.0]
    for value in values:
        first.append(first[-1] + value)
        second.append(second[-1] + value * value)
    return first, second


def _error(sums: _Sums, begin: int, end: int) -> float:
    total = sums[0][end] - sums[0][begin]
    return sums[1][end] - sums[1][begin] - total * total / (end - begin)


def _cut(sums: _Sums, span: tuple[int, int], penalty: float, cuts: list[int]) -> None:
    begin, end = span
    whole = _error(sums, begin, end)
    gains = {i: whole - _error(sums, begin, i) - _error(sums, i, end) for i in range(begin + LEAST, end - LEAST)}
    at = max(gains, key=gains.__getitem__, default=None)
    if at is not None and gains[at] > penalty and len(cuts) < MOST:
        cuts.append(at)
        _cut(sums, (begin, at), penalty, cuts)
        _cut(sums, (at, end), penalty, cuts)
