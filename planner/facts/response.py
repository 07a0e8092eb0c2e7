"""The distribution of a request's response time: services and waits of its queues, taken as independent, convolved."""

from collections.abc import Sequence

import msgspec
import numpy as np

_POINTS = 4096


class Visit(msgspec.Struct, frozen=True):
    """One queue on the way. ``services``: (share, seconds); ``waits``: chance of waiting, then ``wait_s`` on average."""

    services: tuple[tuple[float, float], ...]
    waits: float
    wait_s: float


class Way(msgspec.Struct, frozen=True):
    """A share of a class's requests, and the queues they pass, in turn."""

    share: float
    visits: tuple[Visit, ...]


def quantile(ways: Sequence[Way], probability: float = 0.95) -> float:
    """Seconds within which that share of requests is done; infinite when a queue is overloaded."""
    if any(not np.isfinite(visit.wait_s) for way in ways for visit in way.visits):
        return float("inf")
    span = max(sum(max(s for _, s in v.services) + 7 * v.wait_s * (v.waits > 0) for v in way.visits) for way in ways)
    step = span * 1.01 / (_POINTS // 2)
    total = np.zeros(_POINTS)
    whole = sum(way.share for way in ways)
    for way in ways:
        spectrum = np.ones(_POINTS // 2 + 1, dtype=complex)
        for visit in way.visits:
            spectrum *= np.fft.rfft(_density(visit, step))
        total += way.share / whole * np.fft.irfft(spectrum, _POINTS)
    reached = int(np.searchsorted(np.cumsum(total), probability * (1 - 1e-9)))
    return reached * step


def _density(visit: Visit, step: float) -> np.ndarray:
    """Probability mass on the grid, each atom split between its two neighbours so that means are kept."""
    service = np.zeros(_POINTS)
    for share, seconds in visit.services:
        at, rest = divmod(seconds / step, 1.0)
        service[int(at)] += share * (1 - rest)
        service[int(at) + 1] += share * rest
    if visit.waits <= 0 or visit.wait_s <= 0:
        return service
    edges = np.exp(-np.maximum(np.arange(_POINTS // 2) * step - step / 2, 0) / visit.wait_s)
    mass = np.zeros(_POINTS)
    mass[: _POINTS // 2 - 1] = visit.waits * (edges[:-1] - edges[1:])
    mass[_POINTS // 2 - 1] = visit.waits * edges[-1]
    mass[0] += 1 - visit.waits
    return np.fft.irfft(np.fft.rfft(service) * np.fft.rfft(mass), _POINTS)
