"""The published rule that the hybrid is measured against (``scaling: reactive``).

LightX2V's disaggregation controller (ModelTC/LightX2V, lightx2v/disagg/services/controller.py at f8aee98): one more instance
of the service with the longest queue whose GPUs are busy for more than 80 % or whose queue is longer than 2; one less of a
service below 20 % with an empty queue that is not the most loaded; each service at most once in 30 s; encoders never.
"""

from collections.abc import Mapping
from typing import Final

from planner.domain import Role
from planner.run.config import RoleBounds
from planner.run.decisions import Reason
from planner.run.observe import Observation, RoleState

BUSY, IDLE, QUEUE, COOLDOWN_S = 0.8, 0.2, 2, 30.0
NEVER: Final = "encode"


class PublishedRule:
    """Keeps when each role was last scaled."""

    def __init__(self) -> None:
        self._last_s: dict[Role, float] = {}

    def step(
        self,
        seen: Observation,
        bounds: Mapping[Role, RoleBounds],
        counts: Mapping[Role, int],
        room: int | None,
        now: float,
    ) -> tuple[dict[Role, int], Reason] | None:
        """New counts and why; None: as they are. ``room``: workers there may be in all."""
        states = [state for state in seen.roles if state.role.stage != NEVER and state.ready]
        if not states:
            return None
        loaded = max(states, key=_score)
        free = room is None or sum(counts.values()) < room
        for state in sorted(states, key=_score, reverse=True):
            if now - self._last_s.get(state.role, -COOLDOWN_S) < COOLDOWN_S:
                continue
            role, busy, most = state.role, state.computing / state.ready, bounds[state.role].most
            numbers = {"busy": busy, "queue": float(state.queued)}
            if (busy > BUSY or state.queued > QUEUE) and free and (most is None or counts[role] < most):
                return self._scaled(
                    role, counts, 1, Reason("pressure", f"{role} is busy or its queue long", numbers), now
                )
            spare = counts[role] > max(bounds[role].least, 1)
            if busy < IDLE and state.queued == 0 and spare and state is not loaded:
                return self._scaled(role, counts, -1, Reason("idle", f"{role} is idle", numbers), now)
        return None

    def _scaled(
        self, role: Role, counts: Mapping[Role, int], by: int, why: Reason, now: float
    ) -> tuple[dict[Role, int], Reason]:
        self._last_s[role] = now
        return {**counts, role: counts[role] + by}, why


def _score(state: RoleState) -> float:
    return state.queued + max(state.running - state.computing, 0) / max(state.ready, 1)
