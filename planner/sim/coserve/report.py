"""What came of a run: latencies and how many objectives were met."""

from collections.abc import Callable, Iterable

import msgspec

from planner.domain import Shape


class Served(msgspec.Struct, frozen=True):
    """One request that has its result."""

    model: str
    shape: Shape
    video: bool
    arrived_s: float
    ended_s: float
    due_s: float
    pauses: int

    @property
    def latency_s(self) -> float:
        """From its arrival."""
        return self.ended_s - self.arrived_s

    @property
    def met(self) -> bool:
        """Whether it was on time."""
        return self.ended_s <= self.due_s


class Summary(msgspec.Struct, frozen=True):
    """A run. ``unserved``: requests that no order ever reached (a policy that starves them, or a fleet that cannot)."""

    served: tuple[Served, ...]
    end_s: float
    pauses: int
    loads: int
    regroups: int
    unserved: int
    busy_gpu_s: float

    def attainment(self, which: Callable[[Served], bool] = lambda _: True) -> float:
        """Share of those that met their objective; what was never served did not."""
        chosen = [one for one in self.served if which(one)]
        everyone = len(chosen) + self.unserved
        return sum(one.met for one in chosen) / everyone if everyone else 0.0

    def mean_s(self, which: Callable[[Served], bool] = lambda _: True) -> float:
        """Mean latency."""
        found = [one.latency_s for one in self.served if which(one)]
        return sum(found) / len(found) if found else 0.0

    def p95_s(self, which: Callable[[Served], bool] = lambda _: True) -> float:
        """95th percentile of the latency."""
        return quantile((one.latency_s for one in self.served if which(one)), 0.95)


def quantile(values: Iterable[float], share: float) -> float:
    """By nearest rank; 0 without values."""
    ordered = sorted(values)
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)] if ordered else 0.0


def images(one: Served) -> bool:
    """Requests of one frame."""
    return not one.video


def videos(one: Served) -> bool:
    """Requests of several."""
    return one.video
