"""Which stages reside on which GPU, under its memory: the placement plan, and how to get from one to the next.

As TridentServe (arXiv 2510.02838) has it, the unit is the stage, and a GPU may hold several: encoding beside decoding, or a
whole pipeline where that is small. The plan aims at the least *cover*: what multiple of its demand each role could be served,
when the GPUs that hold it share their time. Weights cost memory, moving them costs time, so a new plan must be worth its moves.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from planner.domain import Role
from planner.run.orders import Card

Placement = dict[str, frozenset[Role]]
"""place (a worker, or the GPU that several share) → roles"""

HORIZON_S: Final = 300.0  # over which a move has to pay
MOST_TRIED: Final = 8  # roles that a re-derivation looks at, those with the most load


class Demand(msgspec.Struct, frozen=True):
    """A role's load in GPUs that it keeps busy, its weights, and what computing takes beside all weights."""

    role: Role
    load: float
    weights_gib: float
    active_gib: float = 0.0


def place(demands: Sequence[Demand], memory_gib: Mapping[str, float]) -> Placement:
    """Fill the GPUs: every role somewhere, then again and again the role whose GPUs are the most crowded, where there is room.

    Roles that fit nowhere are left out (the planner's own memory check says so before anybody rents anything).
    """
    held: dict[str, list[Demand]] = {worker: [] for worker in memory_gib}
    crowd = dict.fromkeys(memory_gib, 0.0)
    count = {demand.role: 0 for demand in demands}
    order = sorted(demands, key=lambda one: (-one.load, str(one.role)))
    wanted = list(order)
    while wanted:
        demand = max(wanted, key=lambda one: (count[one.role] == 0, one.load / max(count[one.role], 1)))
        able = [
            worker
            for worker, roles in held.items()
            if demand not in roles and Space(memory_gib[worker]).holds([*roles, demand])
        ]
        if not able:
            wanted.remove(demand)
            continue
        at = min(able, key=lambda worker: crowd[worker])
        held[at].append(demand)
        count[demand.role] += 1
        crowd = _crowd(held, count)
    return {worker: frozenset(one.role for one in roles) for worker, roles in held.items()}


def _crowd(held: Mapping[str, Sequence[Demand]], count: Mapping[Role, int]) -> dict[str, float]:
    return {worker: sum(one.load / count[one.role] for one in roles) for worker, roles in held.items()}


class Space(msgspec.Struct, frozen=True):
    """Where something may be loaded. ``card``: as of :class:`planner.run.orders.Instance`."""

    memory_gib: float
    card: Card | None = None

    def open_to(self, role: Role) -> bool:
        """Whether the role may be loaded here."""
        return self.card is None or role in self.card.open_to

    def lets_go(self, role: Role) -> bool:
        """Whether the role may be dropped here."""
        return self.card is None or role in self.card.loose

    def holds(self, roles: Sequence[Demand]) -> bool:
        """Whether all of them have room together."""
        if self.card is not None:
            return self.card.holds(frozenset(one.role for one in roles))
        active = max((one.active_gib for one in roles), default=0.0)
        return sum(one.weights_gib for one in roles) + active <= self.memory_gib


class Move(msgspec.Struct, frozen=True):
    """Bring a role to a place, dropping others there."""

    place: str
    role: Role
    drop: tuple[Role, ...]


def cheapest(
    wanted: Demand, demands: Mapping[Role, Demand], held: Mapping[str, frozenset[Role]], spaces: Mapping[str, Space]
) -> Move | None:
    """Where a role costs the others least: the place (of ``spaces``) whose dropped roles have most copies for their load.

    The last copy of a role is never dropped. ``held``: of all places. None: it goes nowhere.
    """
    copies: dict[Role, int] = {}
    for roles in held.values():
        for role in roles:
            copies[role] = copies.get(role, 0) + 1
    found: tuple[float, str, Move] | None = None
    for place, space in spaces.items():
        roles = held[place]
        if wanted.role in roles or not space.open_to(wanted.role):
            continue
        drop = _dropped(wanted, [demands[role] for role in roles if role in demands], copies, space)
        if drop is None:
            continue
        loss = sum(one.load / copies[one.role] for one in drop)
        stay = sum(demands[role].load / copies[role] for role in roles if role in demands) - loss
        row = (loss + stay / 2, place, Move(place, wanted.role, tuple(one.role for one in drop)))
        if found is None or row[:2] < found[:2]:
            found = row
    return found[2] if found is not None else None


def _dropped(wanted: Demand, there: Sequence[Demand], copies: Mapping[Role, int], space: Space) -> list[Demand] | None:
    """What has to go: those with least load a copy first. None: there is no room even so. Roles nobody asked for are free."""
    keep = sorted(there, key=lambda one: one.load / copies[one.role])
    drop: list[Demand] = []
    while keep and not space.holds([wanted, *keep]):
        out = next((one for one in keep if copies[one.role] > 1 and space.lets_go(one.role)), None)
        if out is None:
            return None
        keep.remove(out)
        drop.append(out)
    if not space.holds([wanted, *keep]):
        return None
    return drop if space.card is None else _needed(drop, [wanted, *keep], space)


def _needed(drop: Sequence[Demand], stay: list[Demand], space: Space) -> list[Demand]:
    """Those that do have to go, now that it is known who does: each that goes besides is a worker that has to end first."""
    gone = list(drop)
    for one in reversed(drop):
        if space.holds([*stay, one]):
            gone.remove(one)
            stay.append(one)
    return gone


def rederive(
    demands: Sequence[Demand],
    held: Mapping[str, frozenset[Role]],
    spaces: Mapping[str, Space],
    load_s: Mapping[Role, float],
    horizon_s: float = HORIZON_S,
) -> Move | None:
    """The one move that helps most, to one of ``spaces``, where it is worth its cost; None: the placement is good as it is.

    A placement's cost is the mean square of how crowded GPUs are (a convex stand-in for waiting); a move is worth it when what
    that falls by over ``horizon_s`` is more than the seconds for which the GPU loads instead of working.
    """
    known = {one.role: one for one in demands}
    now = _cost(known, held)
    best: tuple[float, Move] | None = None
    for wanted in sorted((one for one in demands if one.load > 0), key=lambda one: -one.load)[:MOST_TRIED]:
        move = cheapest(wanted, known, held, spaces)
        if move is None:
            continue
        roles = (held[move.place] - set(move.drop)) | {move.role}
        gain = (now - _cost(known, {**held, move.place: roles})) * horizon_s - load_s[wanted.role]
        if gain > 0 and (best is None or gain > best[0]):
            best = (gain, move)
    return best[1] if best is not None else None


def _cost(demands: Mapping[Role, Demand], held: Mapping[str, frozenset[Role]]) -> float:
    """Sum of squares of how crowded the GPUs are; a role that is nowhere counts as one GPU that has it all."""
    copies: dict[Role, int] = dict.fromkeys(demands, 0)
    for roles in held.values():
        for role in roles:
            if role in copies:
                copies[role] += 1
    total = sum(one.load**2 + one.load for one in demands.values() if not copies[one.role])
    return total + sum(
        sum(demands[role].load / copies[role] for role in roles if role in demands) ** 2 for roles in held.values()
    )
