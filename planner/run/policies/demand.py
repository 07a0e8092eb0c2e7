"""What the mix is: GPUs that each role would keep busy, from the requests that came lately."""

import math
from collections.abc import Sequence
from typing import Final

from msgspec.structs import replace

from planner.domain import Role
from planner.run.orders import Instance, Times, View
from planner.run.policies.placement import Demand, Move, Placement, Space, cheapest

TAU_S: Final = 240.0  # of the moving mean


class Demands:
    """Counts a request's work once, when it is first seen."""

    def __init__(self, times: Times) -> None:
        self._times = times
        self._work: dict[Role, float] = {}  # decayed GPU-seconds
        self._active: dict[Role, float] = {}
        self._newest = -1
        self._since_s: float | None = None
        self._last_s = 0.0

    def see(self, view: View, accelerator: str, now: float) -> None:
        """Take in what is new."""
        if self._since_s is None:
            self._since_s = self._last_s = now
        decay = math.exp(-(now - self._last_s) / TAU_S)
        self._last_s = now
        for role in self._work:
            self._work[role] *= decay
        alone = {role for one in view.instances if one.card is not None for role in one.card.roles}
        for role in alone - self._work.keys():
            self._work[role] = self._active[role] = 0.0  # nobody has asked for it, and its place is taken all the same
        newest = self._newest
        for job in view.pending:
            if job.seq <= self._newest:
                continue
            newest = max(newest, job.seq)
            for stage in (job.role.stage, *job.after):
                role = Role(job.role.model, stage)
                seconds = self._times.stage_s(role, accelerator, job.shape) or 0.0
                self._work[role] = self._work.get(role, 0.0) + seconds
                active = self._times.active_gib(role, job.shape)
                self._active[role] = max(self._active.get(role, 0.0), active)
        self._newest = newest

    def rates(self, now: float) -> list[Demand]:
        """GPUs kept busy by each role that was ever asked for, or that takes a place."""
        age = now - (self._since_s if self._since_s is not None else now)
        span = max(TAU_S * (1 - math.exp(-age / TAU_S)), TAU_S / 4)
        return [
            Demand(role, work / span, self._times.weights_gib(role), self._active[role])
            for role, work in self._work.items()
        ]

    def room(self, idle: Sequence[Instance], role: Role, view: View) -> Move | None:
        """Where the role's weights would best go, and what makes room for them; None: nowhere."""
        demands = {one.role: one for one in self.rates(self._last_s)}
        wanted = demands.get(role)
        if wanted is None:
            return None
        return cheapest(wanted, demands, holdings(view), spaces(idle))


def holdings(view: View) -> Placement:
    """What is where, but for workers that drain."""
    return {one.place: one.held for one in view.instances if not one.draining}


def spaces(idle: Sequence[Instance]) -> dict[str, Space]:
    """Where something could be loaded now, and nothing but what is idle dropped for it."""
    found: dict[str, Space] = {}
    for one in idle:
        before, card = found.get(one.place), one.card
        if card is not None:
            loose = one.residents & card.loose
            if before is not None and before.card is not None:
                loose |= before.card.loose
            card = replace(card, loose=loose)
        found[one.place] = Space(one.memory_gib, card)
    return found
