"""What may run on a type of GPU, and what each of the GPUs there are is for. Plain data."""

from collections.abc import Mapping

import msgspec

from planner.domain import Role
from planner.run.fleet import Bundle

Fits = Mapping[str, frozenset[Bundle]]
"""accelerator → what one of its GPUs may hold: a role alone is a bundle of one. Whatever is not named may not run there."""


class Seating(msgspec.Struct, frozen=True):
    """What the GPUs of each type are for. ``alone``: accelerator → role → GPUs that hold one worker of it; ``shared``:
    accelerator → bundle → GPUs that hold a worker of each of its roles."""

    alone: Mapping[str, Mapping[Role, int]] = {}
    shared: Mapping[str, Mapping[Bundle, int]] = {}

    @property
    def workers(self) -> dict[str, dict[Role, int]]:
        """All workers: accelerator → role → how many."""
        found = {name: dict(roles) for name, roles in self.alone.items()}
        for name, bundles in self.shared.items():
            mine = found.setdefault(name, {})
            for bundle, count in bundles.items():
                for role in bundle:
                    mine[role] = mine.get(role, 0) + count
        return found

    @property
    def counts(self) -> dict[Role, int]:
        """Workers by role, wherever they are."""
        total: dict[Role, int] = {}
        for roles in self.workers.values():
            for role, count in roles.items():
                total[role] = total.get(role, 0) + count
        return total

    def moved(self, accelerator: str, drop: Role, role: Role) -> "Seating | None":
        """With one GPU of its own of that type for ``role`` instead of ``drop``; None: there is none."""
        here = dict(self.alone.get(accelerator, {}))
        if here.get(drop, 0) < 1:
            return None
        here |= {drop: here[drop] - 1, role: here.get(role, 0) + 1}
        return Seating({**self.alone, accelerator: here}, self.shared)

    @property
    def gpus(self) -> dict[str, int]:
        """GPUs in use, by type."""
        names = dict.fromkeys([*self.alone, *self.shared])
        return {n: sum(self.alone.get(n, {}).values()) + sum(self.shared.get(n, {}).values()) for n in names}
