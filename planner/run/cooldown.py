"""When the next move of workers may be: moves have a budget of time, and one that undoes the last one soon costs double."""

from collections.abc import Mapping
from typing import Final

from planner.domain import Role

MOVING_SHARE: Final = 0.1  # of the workers' time that may go into changing roles: with measured delays, the cooldown
MOST_BACKOFF: Final = 8.0


class Cooldown:
    """``interval_s``: between two looks. Remembers the last move."""

    def __init__(self, interval_s: float) -> None:
        self._interval_s = interval_s
        self._backoff = 1.0
        self._moved: dict[Role, int] = {}
        self.until_s = 0.0

    def over(self, now: float) -> bool:
        """Whether a move may be."""
        return now >= self.until_s

    def left_s(self, now: float) -> float:
        """Until one may be."""
        return max(self.until_s - now, 0.0)

    def moved(
        self, before: Mapping[Role, int], after: Mapping[Role, int], seconds: float, loads: int, now: float
    ) -> None:
        """Workers change from these counts to those: ``loads`` of them lose ``seconds`` each, or their neighbours do."""
        by = {role: after[role] - before.get(role, 0) for role in after if after[role] != before.get(role, 0)}
        undone = any(self._moved.get(role, 0) * change < 0 for role, change in by.items())
        calm = now > self.until_s + 4 * seconds
        self._backoff = min(self._backoff * 2, MOST_BACKOFF) if undone and not calm else max(self._backoff / 2, 1.0)
        share = loads * seconds / (max(sum(after.values()), 1) * MOVING_SHARE)
        self.until_s = now + max(seconds + 2 * self._interval_s, share) * self._backoff
        self._moved = by


def switches(before: Mapping[Role, int], after: Mapping[Role, int]) -> int:
    """Workers that change their role between the two."""
    by = [after[role] - before.get(role, 0) for role in after]
    return min(sum(max(one, 0) for one in by), sum(max(-one, 0) for one in by))
