"""Time in a queue of which some classes may use only some of the types of GPU: no formula is near enough, so it is played.

Requests are taken in the order in which they arrive; each starts on that replica, of those that take its class, which is free
first (idle for longest, if several are). With known service times that recursion (Kiefer and Wolfowitz, On the theory of
queues with many servers, 1955) is the queue itself. Independent paths run abreast; seeded: a plan is always told the same.
"""

import math
from collections.abc import Sequence

import msgspec
import numpy as np

PATHS = 64
LEAST, MOST = 1500, 10_000  # requests of one path, of which the first third only warms up
POINTS = 200  # of a distribution

Points = tuple[tuple[float, float], ...]  # (share, seconds)


class Played(msgspec.Struct, frozen=True):
    """Of one class: chance to wait, mean seconds of those who do (infinite when some types get more than they can do),
    (share, seconds) of service by type, and of wait + service."""

    waits: float
    wait_s: float
    services: Points
    spans: Points


def play(
    counts: Sequence[int], rates: dict[int, float], seconds: Sequence[dict[int, float]], ca2: float, load: float
) -> dict[int, Played]:
    """``rates``: class → requests/s; ``seconds``: of each type, class → seconds, absent where it may not run.

    ``load``: of the busiest part, below 1. It takes about 1/(1 − load)² services to forget how things stood, so that a busier
    queue is followed for longer.
    """
    draw = np.random.default_rng(1)
    classes, rate = sorted(rates), sum(rates.values())
    steps = int(min(max(LEAST, 30 / (1 - min(load, 0.99)) ** 2), MOST))
    kind = np.repeat(np.arange(len(counts)), counts)
    table = np.array([[seconds[at].get(k, np.inf) for at in kind.tolist()] for k in classes])
    which = draw.choice(len(classes), (steps, PATHS), p=[rates[k] / rate for k in classes])
    now = np.cumsum(draw.gamma(1 / ca2, ca2 / rate, (steps, PATHS)), axis=0)
    waited, taken = _recursion(now, which, table)
    warm = steps // 3
    which, waited, taken = which[warm:], waited[warm:], taken[warm:]
    on, served = kind[taken], table[which, taken]
    work = np.bincount(on.ravel(), served.ravel(), len(counts)) * rate / which.size
    swamped = np.flatnonzero((work >= counts) & (work > 0))
    return {
        k: _summary(waited[mine], on[mine], served[mine], bool(np.isin(on[mine], swamped).any()))
        for n, k in enumerate(classes)
        for mine in [which == n]
    }


def _recursion(now: np.ndarray, which: np.ndarray, table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(wait, replica) of every request; ``now`` and ``which`` class: [steps, paths], ``table``: [classes, replicas] seconds."""
    steps, paths = now.shape
    barred = np.where(np.isinf(table), np.inf, 0.0)
    free = np.zeros((paths, table.shape[1]))
    flat, rows = free.ravel(), np.arange(paths) * table.shape[1]
    waited, taken = np.empty((steps, paths)), np.empty((steps, paths), dtype=np.intp)
    for step in range(steps):
        own = which[step]
        chosen = (free + barred[own]).argmin(axis=1)
        at = rows + chosen
        start = np.maximum(flat[at], now[step])
        flat[at] = start + table[own, chosen]
        waited[step], taken[step] = start - now[step], chosen
    return waited, taken


def _summary(waited: np.ndarray, on: np.ndarray, served: np.ndarray, swamped: bool) -> Played:
    late = waited > 0
    chance = float(late.mean())
    services = tuple((float((on == at).mean()), float(served[on == at].mean())) for at in np.unique(on))
    if swamped:
        return Played(1.0, math.inf, services, ())
    spans = np.quantile(waited + served, (np.arange(POINTS) + 0.5) / POINTS)
    mean = float(waited[late].mean()) if chance else 0.0
    return Played(chance, mean, services, tuple((1 / POINTS, float(span)) for span in spans))
