"""Which stages reside on which GPU, under its memory: the placement plan, and how to get from one to the next.

As TridentServe (arXiv 2510.02838) has it, the unit is the stage, and a GPU may hold several: encoding beside decoding, or a
whole pipeline where that is small. The plan aims at the least *cover*: what multiple of its demand each role could be served,
when the GPUs that hold it share their time. Weights cost memory, moving them costs time, so a new plan must be worth its moves.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from planner.domain import Role

Placement = dict[str, frozenset[Role]]
"""worker → roles"""

ROUNDS: Final = 200  # of filling a flow: it is then within a few parts in a thousand
NO_LOAD: Final = 1e-9


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
        able = [worker for worker in held if _fits(held[worker], demand, memory_gib[worker])]
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


def _fits(held: Sequence[Demand], more: Demand, memory_gib: float) -> bool:
    if any(one.role == more.role for one in held):
        return False
    active = max([one.active_gib for one in held] + [more.active_gib])
    return sum(one.weights_gib for one in held) + more.weights_gib + active <= memory_gib
