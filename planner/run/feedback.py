"""What prediction did not see: a stage that is busy AND has a long queue gets a worker, one that has more than it needs for
long gives one up. One step at a time; the two thresholds lie apart, so that a step does not call for its reverse."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from planner.domain import Role
from planner.run.allocate import Load
from planner.run.config import PolicyConfig, RoleBounds
from planner.run.decisions import Reason
from planner.run.load import SLO_MARGIN, WorkModel
from planner.run.observe import Observation, RoleState

BUSY: Final = 0.85
SETTLED: Final = 0.85  # predicted utilisation that a stage may have after it gave up a worker
QUEUE_SHARE: Final = 0.25  # of the objective that waiting in one queue may take
BETTER: Final = 1.08  # gain that a move must promise: more than the times are unsure by
STEP: Final = 0.2  # of a stage's workers at once

Move = tuple[dict[Role, int], Reason]


class Feedback:
    """Smooths how busy stages are and remembers how long they could do with less."""

    def __init__(self, config: PolicyConfig, work: WorkModel) -> None:
        self._config, self._work = config, work
        self.busy: dict[Role, float] = {}
        self._spare_since_s: dict[Role, float] = {}

    def see(self, seen: Observation) -> None:
        """Take in how busy workers are; over about two service times, for one task says little."""
        for state in seen.roles:
            if state.ready:
                share = min(state.computing / state.ready, 1.0)
                window_s = max(2 * self._work.seconds(state.role) / math.sqrt(state.ready), 30.0)
                gain = 1 - math.exp(-self._config.interval_s / window_s)
                old = self.busy.get(state.role, share)
                self.busy[state.role] = old + gain * (share - old)

    def up(
        self,
        seen: Observation,
        bounds: Mapping[Role, RoleBounds],
        counts: Mapping[Role, int],
        room: int | None,
        cover: Callable[[Mapping[Role, int]], float],
    ) -> Move | None:
        """A step for the stage under most pressure, from free room or from a stage that can spare a worker.

        ``cover``: what multiple of the load counts could carry; 0: the machines do not hold them. Busy is what a stage is now;
        whether the giver would hold without the worker only the (corrected) times tell.
        """
        pressed = [(wait, state) for state in seen.roles if (wait := self._pressure(state)) > 1]
        for wait, state in sorted(pressed, key=lambda pair: -pair[0]):
            role, most = state.role, bounds[state.role].most
            step = max(1, math.floor(STEP * counts[role]))
            if most is not None:
                step = min(step, most - counts[role])
            if step <= 0:
                continue
            numbers = {"busy": self.busy.get(role, 0.0), "queued": float(state.queued), "over_threshold": wait}
            free = step if room is None else min(step, room - sum(counts.values()))
            if free > 0 and (room is None or cover({**counts, role: counts[role] + free}) > 0):
                text = f"{role} is {self.busy.get(role, 0):.0%} busy with {state.queued} waiting"
                return {**counts, role: counts[role] + free}, Reason("pressure", text, numbers)
            donor = self._donor(role, bounds, counts)
            if donor is None:
                continue
            moved = {**counts, role: counts[role] + 1, donor: counts[donor] - 1}
            if cover(moved) > BETTER * cover(counts):
                text = f"{role} is {self.busy.get(role, 0):.0%} busy with {state.queued} waiting; {donor} can spare a worker"
                return moved, Reason("pressure", text, numbers)
        return None

    def down(
        self, loads: Sequence[Load], bounds: Mapping[Role, RoleBounds], counts: Mapping[Role, int], now: float
    ) -> Move | None:
        """A step down for a stage that would have kept its promise with one worker less for all of the patience."""
        need = self._work.needed(loads, bounds)
        found: Move | None = None
        for load in loads:
            role = load.role
            fewer = {**counts, role: counts[role] - 1}
            spare = counts[role] > max(need[role], bounds[role].least) and self._holds(loads, fewer, role.model)
            since = self._spare_since_s.setdefault(role, now) if spare else None
            if since is None:
                self._spare_since_s.pop(role, None)
            elif now - since >= self._config.patience_s and found is None:
                numbers = {"needed": float(need[role]), "for_s": now - since}
                found = (
                    fewer,
                    Reason("idle", f"{role} has needed no more than {need[role]} for {now - since:.0f} s", numbers),
                )
                self._spare_since_s.pop(role)
        return found

    def _pressure(self, state: RoleState) -> float:
        """Above 1: busy, and its queue is a wait of more than a fair share of the objective (or of the services)."""
        if not state.ready or self.busy.get(state.role, 0.0) < BUSY:
            return 0.0
        model = state.role.model
        allowed = QUEUE_SHARE * (
            self._config.slo_p95_s.get(model) or 4 * sum(map(self._work.seconds, self._work.roles[model]))
        )
        return state.queued * self._work.seconds(state.role) / state.ready / max(allowed, 1e-9)

    def _donor(self, taker: Role, bounds: Mapping[Role, RoleBounds], counts: Mapping[Role, int]) -> Role | None:
        """Whoever would be least busy with one worker less."""
        after = {
            role: self.busy.get(role, 0.0) * count / (count - 1)
            for role, count in counts.items()
            if role != taker and role in bounds and count > max(bounds[role].least, 1)
        }
        best = min(after, key=after.__getitem__, default=None)
        return best if best is not None and after[best] <= SETTLED else None

    def _holds(self, loads: Sequence[Load], counts: Mapping[Role, int], model: str) -> bool:
        slo = self._config.slo_p95_s.get(model)
        return slo is None or self._work.p95_s(loads, counts, model) <= SLO_MARGIN * slo
