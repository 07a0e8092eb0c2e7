"""What becomes of a dispatch policy's order to load: what is done towards it now, and why it may not be. Pure.

A GPU holds workers of one role each. An order (:class:`planner.run.effects.LoadRole`) names what it is to hold besides, and
what no longer. What comes must not meet what goes in the GPU's memory: one that goes takes the new role, others end first.
"""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Final

import msgspec
from msgspec.structs import replace

from planner.domain import Role
from planner.run.config import PolicyConfig, RoleBounds
from planner.run.delays import Delays
from planner.run.effects import LoadRole
from planner.run.observe import RoleState
from planner.run.seating import Together

Roles = frozenset[Role]
States = Sequence[RoleState]

MOST_FAILED: Final = 16  # sets of roles that did not come up, remembered of a type of GPU


class Step(msgspec.Struct, frozen=True):
    """A GPU is to hold ``after`` instead of ``before``: workers of the roles ``ends`` end, or the one of ``turns`` takes the
    role that comes; neither: a worker is started for it."""

    before: Roles
    after: Roles
    ends: Roles = frozenset()
    turns: Role | None = None

    @property
    def loads(self) -> bool:
        """Whether weights are loaded."""
        return not self.ends


class Beside:
    """What may be together on a type of GPU, by what is known and by what was tried."""

    def __init__(self, config: PolicyConfig) -> None:
        self._config = config
        self._failed: dict[str, deque[Roles]] = {}

    def on(self, accelerator: str) -> Together | None:
        """None: anything, but one role."""
        if self._config.fits is None:
            return None
        sets = self._config.fits.get(accelerator, frozenset())
        known, failed = self._config.together.get(accelerator) or Together(sets), self._failed.get(accelerator, ())
        return replace(known, failed=tuple(failed)) if failed else known

    def failed(self, accelerator: str, roles: Roles) -> None:
        """They did not come up together: not again, until it is one of many."""
        self._failed.setdefault(accelerator, deque(maxlen=MOST_FAILED)).append(roles)


def step_of(asked: LoadRole, held: Roles) -> Step | None:
    """What is done first on a GPU that holds these; None: the order does not suit it."""
    if asked.role in held or not held.issuperset(asked.drop):
        return None
    if len(asked.drop) > 1:
        ends = frozenset(asked.drop[1:])
        return Step(held, held - ends, ends)
    return Step(held, held - set(asked.drop) | {asked.role}, turns=next(iter(asked.drop), None))


def more(bounds: Mapping[Role, RoleBounds], wanted: Mapping[Role, int]) -> Roles:
    """Roles that may have one worker more."""
    return frozenset(role for role, bound in bounds.items() if bound.most is None or wanted.get(role, 0) < bound.most)


def fewer(bounds: Mapping[Role, RoleBounds], wanted: Mapping[Role, int]) -> Roles:
    """Roles that may have one worker less: never the last."""
    return frozenset(role for role, bound in bounds.items() if wanted.get(role, 0) > max(bound.least, 1))


def step_s(step: Step, delays: Delays, seconds: Callable[[Role], float]) -> float:
    """How long it takes: the longest drain of those that go, and the load of what comes. ``seconds``: of a role's task."""
    gone, come = step.before - step.after, step.after - step.before
    drain_s = max((delays.drain_s(role, seconds(role)) for role in gone), default=0.0)
    return drain_s + max((delays.load_s(role) for role in come), default=0.0)


def refusal(
    asked: LoadRole,
    held: frozenset[Role],
    states: Sequence[RoleState],
    bounds: Mapping[Role, RoleBounds],
    together: Together | None,
) -> str:
    """Why an order is not carried out on a GPU that holds these; "" when it is. ``together``: None: a GPU holds one role."""
    busy = next((one.role for one in states if one.coming or one.draining), None)
    if busy is not None:
        return f"a worker of {busy} loads or drains"
    wanted, ready = {one.role: one.wanted for one in states}, {one.role: one.ready for one in states}
    kept = next((role for role in asked.drop if role not in fewer(bounds, wanted)), None)
    if kept is not None:
        return f"{kept} has no worker to spare"
    if asked.role not in more(bounds, wanted):
        return f"{asked.role} has all the workers that it may have"
    alone = next((role for role in asked.drop if ready[role] < 2), None)
    if alone is not None:
        return f"one worker alone serves {alone}"
    if ready[asked.role] < wanted[asked.role]:
        return f"not all of {asked.role} are ready: another may fail as they do"
    return _why_not(held - set(asked.drop) | {asked.role}, together)


def _why_not(roles: AbstractSet[Role], together: Together | None) -> str:
    if together is None:
        return "" if len(roles) < 2 else "this GPU's memory is not known: it holds one role"
    return together.why_not(roles)
