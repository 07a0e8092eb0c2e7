"""What was computed lately, by role: how long it took, in what batches, and what the encoder cache saved. Bounded."""

from collections import defaultdict, deque
from typing import Final

from planner.domain import Role
from stages.protocol import Done

RECENT: Final = 512  # results remembered of a role


class Tally:
    """Filled by the engine, read by the status view."""

    def __init__(self) -> None:
        self.durations: defaultdict[Role, deque[float]] = defaultdict(lambda: deque(maxlen=RECENT))  # seconds
        self.batches: defaultdict[Role, deque[int]] = defaultdict(
            lambda: deque(maxlen=RECENT)
        )  # computed at once with each
        self.remembered: dict[Role, list[int]] = {}  # tasks whose result was computed, and remembered

    def add(self, role: Role, done: Done) -> None:
        """Take in a result that counts."""
        if done.cached is not None:
            self.remembered.setdefault(role, [0, 0])[done.cached] += 1
        if not done.cached:
            self.durations[role].append(done.seconds)
            self.batches[role].append(done.batch)
