"""What a simulated run leaves behind."""

from collections.abc import Mapping

import msgspec

from planner.domain import Role, Shape


class Sample(msgspec.Struct, frozen=True, array_like=True):
    """The fleet at a moment. ``ready``: workers by role; ``moving``: that load or drain; ``queued``: requests that wait."""

    at_s: float
    queued: int
    moving: int
    usd_per_hour: float
    ready: tuple[int, ...]


class Action(msgspec.Struct, frozen=True, array_like=True):
    """A decision that was carried out, and why."""

    at_s: float
    kind: str
    code: str
    text: str
    counts: tuple[int, ...] = ()


class Ended(msgspec.Struct, frozen=True, array_like=True):
    """A request that has its result."""

    at_s: float
    latency_s: float
    model: str
    shape: Shape


class Run(msgspec.Struct, frozen=True):
    """``roles``: the order of all counts. ``end_s``: when the run was stopped; ``decide_s`` belongs to whoever measured it."""

    name: str
    roles: tuple[Role, ...]
    end_s: float
    arrived: int
    ended: tuple[Ended, ...]
    samples: tuple[Sample, ...]
    actions: tuple[Action, ...]
    usd: float
    redelivered: int = 0
    failed: int = 0
    rebalances_s: tuple[float, ...] = ()  # from an order to change roles until the last worker was ready

    @property
    def requests(self) -> int:
        """Completed by the end of the run."""
        return len(self.ended)

    def by_minute(self) -> tuple[int, ...]:
        """Completions in each minute; the last one may be short."""
        counts = [0] * max(1, -int(-self.end_s // 60))
        for one in self.ended:
            counts[min(int(one.at_s // 60), len(counts) - 1)] += 1
        return tuple(counts)

    def between(self, begin_s: float, end_s: float) -> int:
        """Completions in a span."""
        return sum(begin_s <= one.at_s < end_s for one in self.ended)

    def latency_s(self, share: float = 0.95) -> float | None:
        """Nearest-rank percentile over all that ended."""
        ordered = sorted(one.latency_s for one in self.ended)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else None

    def attainment(self, slo_s: Mapping[str, float]) -> float | None:
        """Share of arrived requests that were done within their objective; None without one. What still waits counts as
        missed once its time is up, and not at all before."""
        if not slo_s:
            return None
        kept = sum(one.latency_s <= slo_s.get(one.model, float("inf")) for one in self.ended)
        return kept / self.judged if self.judged else None

    judged: int = 0  # requests that ended, or whose time was up when the run ended

    def p95_kept(self, slo_s: Mapping[str, float], window_s: float = 300.0) -> float | None:
        """Share of windows in which 95 % of what ended was within its objective."""
        if not slo_s:
            return None
        windows: dict[int, list[bool]] = {}
        for one in self.ended:
            kept = one.latency_s <= slo_s.get(one.model, float("inf"))
            windows.setdefault(int(one.at_s // window_s), []).append(kept)
        good = sum(sum(kept) >= 0.95 * len(kept) for kept in windows.values())
        return good / len(windows) if windows else None
