"""What may run on a type of GPU, and what each of the GPUs there are is for. Plain data."""

from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Final

import msgspec

from planner.domain import Role
from planner.run.fleet import Bundle

PROCESS_GIB: Final = 0.9  # of a GPU, for each process beside the first: its CUDA context and libraries

Fits = Mapping[str, frozenset[Bundle]]
"""accelerator → what one of its GPUs may hold: a role alone is a bundle of one. Whatever is not named may not run there."""


class Together(msgspec.Struct, frozen=True):
    """What one GPU of a type may hold at a time: a worker, a process of its own, of each of some roles.

    ``sets``: the planner's (:data:`Fits`); any part of one may be there. ``needs_gib``: what a worker of a role takes at most,
    its weights and the largest of the requests; absent: not known. ``usable_gib``: of the GPU; 0: not known. ``failed``:
    what was tried and did not come up.
    """

    sets: frozenset[Bundle] = frozenset()
    needs_gib: Mapping[Role, float] = {}
    usable_gib: float = 0.0
    failed: tuple[frozenset[Role], ...] = ()

    def holds(self, roles: AbstractSet[Role]) -> bool:
        """Whether all of them may be there."""
        return not self.why_not(roles)

    def why_not(self, roles: AbstractSet[Role]) -> str:
        """The reason that they may not; "" when they may.

        What the planner does not have together, as stages of several models, computes at the same time: all that each takes at
        most has to have room, as far as it is known.
        """
        strange = next((role for role in roles if (role,) not in self.sets), None)
        if strange is not None:
            return f"{strange} may not be on such a GPU"
        if any(roles >= some for some in self.failed):
            return "it was tried, and did not come up"
        if len(roles) < 2 or any(roles <= set(bundle) for bundle in self.sets):
            return ""
        unknown = next((role for role in roles if role not in self.needs_gib), None)
        if unknown is not None or not self.usable_gib:
            return f"the memory of {unknown or 'the GPU'} is not known"
        needed = sum(self.needs_gib[role] for role in roles) + PROCESS_GIB * (len(roles) - 1)
        return "" if needed <= self.usable_gib else f"{needed:.1f} GiB of {self.usable_gib:.1f} would be needed"


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

    def turned(
        self, accelerator: str, before: AbstractSet[Role], after: AbstractSet[Role], order: Sequence[Role]
    ) -> "Seating | None":
        """With one GPU of that type that holds ``after`` instead of ``before``, neither empty; None: no GPU holds that.

        ``order``: of all roles, as bundles name them.
        """
        alone, shared = dict(self.alone.get(accelerator, {})), dict(self.shared.get(accelerator, {}))
        for roles, by in ((before, -1), (after, 1)):
            if len(roles) == 1:
                (role,) = roles
                alone[role] = alone.get(role, 0) + by
                left = alone[role]
            else:
                bundle = next((one for one in shared if set(one) == roles), _ordered(roles, order))
                left = shared.pop(bundle, 0) + by
                shared |= {bundle: left} if left else {}
            if left < 0:
                return None
        others = {name: bundles for name, bundles in self.shared.items() if name != accelerator}
        return Seating({**self.alone, accelerator: alone}, {**others, accelerator: shared} if shared else others)

    @property
    def gpus(self) -> dict[str, int]:
        """GPUs in use, by type."""
        names = dict.fromkeys([*self.alone, *self.shared])
        return {n: sum(self.alone.get(n, {}).values()) + sum(self.shared.get(n, {}).values()) for n in names}


def _ordered(roles: Iterable[Role], order: Sequence[Role]) -> Bundle:
    return tuple(sorted(roles, key=order.index))
