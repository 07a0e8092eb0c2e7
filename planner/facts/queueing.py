"""Waiting in a G/G/c queue: the Allen–Cunneen approximation, and the linear capacity rule fitted to it.

Mean wait W = C(c, ρ)·τ/(c(1−ρ))·(ca² + cs²)/2 with Erlang's C (Allen, Probability, Statistics and Queueing Theory, 2nd ed.,
5.3; https://en.wikipedia.org/wiki/Kingman%27s_formula for c = 1). The wait of those who wait at all is taken as exponential:
P(W > t) = C·exp(−t·C/W). For constant service this is a little optimistic at ca² = 4, and good to a few per cent at ca² = 1.
"""

import math
from functools import lru_cache

TAIL = 0.05  # p95
_SIZES = (*range(1, 17), 20, 24, 32, 48, 64, 128)


def erlang_c(servers: int, load: float) -> float:
    """Probability that an arrival waits in M/M/c; ``load`` in Erlangs, below ``servers``."""
    if load >= servers:
        return 1.0
    if load <= 0:
        return 0.0
    blocked = 1.0  # Erlang B by its recursion, stable for any size
    for each in range(1, servers + 1):
        blocked = load * blocked / (each + load * blocked)
    return servers * blocked / (servers - load * (1 - blocked))


def wait(servers: int, load: float, service_s: float, ca2: float, cs2: float) -> tuple[float, float]:
    """(probability of waiting, mean seconds of those who wait). Infinite when overloaded."""
    if load >= servers:
        return 1.0, math.inf
    return erlang_c(servers, load), service_s / (servers - load) * (ca2 + cs2) / 2


def wait_p95(servers: int, load: float, service_s: float, ca2: float, cs2: float) -> float:
    """95th percentile of the wait, seconds."""
    probability, mean = wait(servers, load, service_s, ca2, cs2)
    return mean * math.log(probability / TAIL) if probability > TAIL else 0.0


@lru_cache(maxsize=65536)
def most_load(servers: int, wait_multiple: float, ca2: float, cs2: float, most: float) -> float:
    """Largest load (≤ most·servers) whose p95 wait is at most ``wait_multiple`` mean service times."""
    high = most * servers
    if wait_p95(servers, high, 1.0, ca2, cs2) <= wait_multiple:
        return high
    low = 0.0
    for _ in range(30):
        middle = (low + high) / 2
        if wait_p95(servers, middle, 1.0, ca2, cs2) <= wait_multiple:
            low = middle
        else:
            high = middle
    return low


@lru_cache(maxsize=4096)
def fit(wait_multiple: float | None, ca2: float, cs2: float, most: float) -> tuple[float, float]:
    """(a, h): load ≤ a·servers − h keeps the p95 wait within ``wait_multiple`` services, for any number of servers.

    Of all such lines the one whose largest relative loss against ``most_load`` is least. None: (most, 0).
    """
    if wait_multiple is None:
        return most, 0.0
    loads = {n: most_load(n, wait_multiple, ca2, cs2, most) for n in _SIZES}
    best = (math.inf, most, 0.0)
    for tenth in range(41):
        a = most * (1 - 0.005 * tenth)
        h = max(0.0, *(a * n - load for n, load in loads.items()))
        loss = max((load - (a * n - h)) / n for n, load in loads.items())
        best = min(best, (loss, a, h))
    return best[1], best[2]
