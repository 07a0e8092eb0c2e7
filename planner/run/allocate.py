"""How many workers of which role on which accelerator: so that the stage that limits throughput limits it least.

A role's *cover* is the multiple of its load that its workers can carry; requests pass all stages, so the least cover is
what a fleet can do. Giving each next worker to the role with the least cover maximises it (for one kind of accelerator this
greedy is exact: every cover only grows, and by a role's own workers alone).
"""

import heapq
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec

from planner.domain import Role
from planner.run.config import RoleBounds

Placement = dict[str, dict[Role, int]]
"""accelerator → role → workers"""

NO_LOAD: Final = 1e-9
UNABLE: Final = 8.0  # times slower: what an accelerator is taken for that a role cannot run on
CHUNKS: Final = 48  # steps in which several kinds of accelerators are given out


class Load(msgspec.Struct, frozen=True):
    """Workers that a role keeps busy, by accelerator, were all its work there (Erlangs). Absent: it cannot run there."""

    role: Role
    on: Mapping[str, float]


def allocate(loads: Sequence[Load], bounds: Mapping[Role, RoleBounds], rooms: Mapping[str, int]) -> Placement:
    """Fill the rooms. Every role gets its least even where that is more than there is room for."""
    table = _Table(loads, rooms)
    for load in sorted(loads, key=lambda one: len(one.on)):
        least = bounds[load.role].least
        missing = least - table.give(load.role, least)
        if missing:
            table.force(load.role, missing)
    if len(rooms) == 1:
        _head_start(table, loads, bounds)
    heap = [(table.cover[load.role], index, load.role) for index, load in enumerate(loads)]
    heapq.heapify(heap)
    step = max(1, table.left // CHUNKS) if len(rooms) > 1 else 1
    while heap and table.left:
        _, index, role = heapq.heappop(heap)
        most = bounds[role].most
        wanted = step if most is None else min(step, most - table.count[role])
        if wanted > 0 and table.give(role, wanted):
            heapq.heappush(heap, (table.cover[role], index, role))
    return table.placed


class _Table:
    """Who has what, while workers are given out."""

    def __init__(self, loads: Sequence[Load], rooms: Mapping[str, int]) -> None:
        self.free = dict(rooms)
        self.left = sum(rooms.values())
        self.placed: Placement = {name: {} for name in rooms}
        self.cover = {load.role: 0.0 for load in loads}
        self.count = {load.role: 0 for load in loads}
        self._loads = {load.role: load for load in loads}
        self._order = {load.role: _preferred(load, loads, list(rooms)) for load in loads}

    def give(self, role: Role, wanted: int) -> int:
        """So many where the role does best; how many there was room for."""
        given = 0
        for name in self._order[role]:
            count = min(wanted - given, self.free[name])
            if count > 0:
                self.free[name] -= count
                self.left -= count
                self._place(role, name, count)
                given += count
            if given == wanted:
                break
        return given

    def force(self, role: Role, count: int) -> None:
        """Room or not."""
        name = next(iter(self._order[role] or self.placed), "")
        self.placed.setdefault(name, {})
        self._place(role, name, count)

    def _place(self, role: Role, name: str, count: int) -> None:
        self.placed[name][role] = self.placed[name].get(role, 0) + count
        self.count[role] += count
        self.cover[role] += count / max(self._loads[role].on.get(name, NO_LOAD), NO_LOAD)


def _head_start(table: _Table, loads: Sequence[Load], bounds: Mapping[Role, RoleBounds]) -> None:
    """What the greedy is sure to give: it ends with no role more than one worker above the least cover."""
    name = next(iter(table.free))
    total = sum(load.on.get(name, 0.0) for load in loads)
    if total <= 0:
        return
    sure = max(table.left - len(loads), 0) / total
    for load in loads:
        most = bounds[load.role].most
        wanted = math.floor(sure * load.on.get(name, 0.0)) - table.count[load.role]
        table.give(load.role, max(min(wanted, wanted if most is None else most - table.count[load.role]), 0))


def _preferred(load: Load, loads: Sequence[Load], names: Sequence[str]) -> list[str]:
    """Accelerators in the order in which the role does best, compared with what the others would make of them."""
    able = [name for name in names if name in load.on]
    if len(able) < 2:
        return able
    least = {one.role: max(min(one.on.values(), default=NO_LOAD), NO_LOAD) for one in loads}

    def loss(name: str) -> float:
        others = [
            one.on[name] / least[one.role] if name in one.on else UNABLE for one in loads if one.role != load.role
        ]
        mean = sum(others) / len(others) if others else 1.0
        return max(load.on[name], NO_LOAD) / least[load.role] / max(mean, NO_LOAD)

    return sorted(able, key=loss)


def cover(loads: Iterable[Load], placed: Mapping[str, Mapping[Role, float]]) -> dict[Role, float]:
    """What multiple of its load each role can carry."""
    found: dict[Role, float] = {}
    for load in loads:
        able = ((count.get(load.role, 0), load.on[name]) for name, count in placed.items() if name in load.on)
        found[load.role] = sum(workers / max(erlangs, NO_LOAD) for workers, erlangs in able)
    return found


def least_cover(loads: Iterable[Load], placed: Mapping[str, Mapping[Role, float]]) -> float:
    """The multiple of the load that the whole can carry; infinite without load."""
    return min(cover(loads, placed).values(), default=math.inf)


def counts_of(placed: Mapping[str, Mapping[Role, int]]) -> dict[Role, int]:
    """Workers by role, wherever they are."""
    total: dict[Role, int] = {}
    for roles in placed.values():
        for role, count in roles.items():
            total[role] = total.get(role, 0) + count
    return total


def trim(counts: Mapping[Role, int], room: int) -> dict[Role, int]:
    """As many workers as there is room for, those of the largest roles left out first; one of each role stays, room or not.

    For the moments between losing machines and the next decision: two workers on a GPU that was to hold one would not fit.
    """
    found = dict(counts)
    for _ in range(sum(counts.values()) - room):
        largest = max(found, key=lambda role: found[role])
        if found[largest] <= 1:
            break
        found[largest] -= 1
    return found
