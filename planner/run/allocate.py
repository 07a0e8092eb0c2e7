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
from planner.run.fleet import Bundle
from planner.run.seating import Fits, Seating

Placement = dict[str, dict[Role, int]]
"""accelerator → role → workers"""

NO_LOAD: Final = 1e-9
UNABLE: Final = 8.0  # times slower: what an accelerator is taken for that a role cannot run on
CHUNKS: Final = 48  # steps in which several kinds of accelerators are given out


class Load(msgspec.Struct, frozen=True):
    """Workers that a role keeps busy, by accelerator, were all its work there (Erlangs). Absent: it cannot run there."""

    role: Role
    on: Mapping[str, float]

    @property
    def least(self) -> float:
        """On the accelerator that is quickest for it."""
        return min(self.on.values(), default=0.0)


def seat(
    loads: Sequence[Load],
    bounds: Mapping[Role, RoleBounds],
    rooms: Mapping[str, int],
    fits: Fits | None = None,
    shared: Mapping[str, Mapping[Bundle, int]] | None = None,
) -> Seating:
    """What every GPU is for: bundles as wished for (``shared``) while there is room, and the rest a worker a GPU.

    A role for which no GPU is left shares one with others, where ``fits`` has them together; else it waits for a machine.
    """
    kept, left = _within_rooms(shared or {}, rooms)
    alone = allocate(loads, bounds, left, fits, kept)
    if fits is None:
        return Seating(alone, kept)
    found = {name: dict(roles) for name, roles in alone.items()}
    for _ in loads:
        counts = Seating(found, kept).counts
        missing = [load.role for load in loads if load.on and not counts.get(load.role)]
        if not any(_double_up(role, loads, fits, found, kept) for role in missing):
            break
    return Seating({name: roles for name, roles in found.items() if roles}, kept)


def _within_rooms(
    shared: Mapping[str, Mapping[Bundle, int]], rooms: Mapping[str, int]
) -> tuple[dict[str, dict[Bundle, int]], dict[str, int]]:
    """The bundles that there is room for, and the room beside them."""
    left = dict(rooms)
    kept: dict[str, dict[Bundle, int]] = {}
    for name, bundles in shared.items():
        for bundle, count in bundles.items():
            fit = min(count, left.get(name, 0))
            if fit:
                kept.setdefault(name, {})[bundle] = fit
                left[name] -= fit
    return kept, left


def _double_up(
    role: Role,
    loads: Sequence[Load],
    fits: Fits,
    alone: dict[str, dict[Role, int]],
    shared: dict[str, dict[Bundle, int]],
) -> bool:
    """Have a role share the GPU that is least busy, of those on which it fits beside who is there."""
    order = [load.role for load in loads]
    work = {load.role: load.on for load in loads}
    options: list[tuple[float, str, Bundle]] = []
    for name, together in fits.items():
        holds: list[Bundle] = [(one,) for one, count in alone.get(name, {}).items() if count]
        holds += [bundle for bundle, count in shared.get(name, {}).items() if count]
        for held in holds:
            wanted = {*held, role}
            if any(wanted <= set(bundle) for bundle in together):
                options.append((sum(work[one].get(name, 0.0) for one in held), name, held))
    if not options:
        return False
    _, name, held = min(options, key=lambda option: option[:2])
    if len(held) == 1:
        alone[name][held[0]] -= 1
        if not alone[name][held[0]]:
            del alone[name][held[0]]
    else:
        shared[name][held] -= 1
        if not shared[name][held]:
            del shared[name][held]
    joined = tuple(sorted({*held, role}, key=order.index))
    mine = shared.setdefault(name, {})
    mine[joined] = mine.get(joined, 0) + 1
    return True


def allocate(
    loads: Sequence[Load],
    bounds: Mapping[Role, RoleBounds],
    rooms: Mapping[str, int],
    fits: Fits | None = None,
    beside: Mapping[str, Mapping[Bundle, int]] | None = None,
) -> Placement:
    """Fill the rooms. Every role gets its least even where that is more than there is room for, unless ``fits`` says what may
    run where. ``beside``: bundles that have GPUs already."""
    table = _Table(loads, rooms, fits, beside or {})
    for load in sorted(loads, key=lambda one: len(one.on)):
        least = max(bounds[load.role].least - table.count[load.role], 0)
        missing = least - table.give(load.role, least)
        if missing and fits is None:
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

    def __init__(
        self,
        loads: Sequence[Load],
        rooms: Mapping[str, int],
        fits: Fits | None,
        beside: Mapping[str, Mapping[Bundle, int]],
    ) -> None:
        self.free = dict(rooms)
        self.left = sum(rooms.values())
        self.placed: Placement = {name: {} for name in rooms}
        self.cover = cover(loads, {}, beside)
        taken = Seating({}, beside).counts
        self.count = {load.role: taken.get(load.role, 0) for load in loads}
        self._loads = {load.role: load for load in loads}
        self._order = {load.role: _preferred(load, loads, _allowed(load, rooms, fits)) for load in loads}

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


def _allowed(load: Load, rooms: Iterable[str], fits: Fits | None) -> list[str]:
    """Accelerators on which the role may have a GPU of its own."""
    return [name for name in rooms if fits is None or (load.role,) in fits.get(name, ())]


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
    least = {one.role: max(one.least, NO_LOAD) for one in loads}

    def loss(name: str) -> float:
        others = [
            one.on[name] / least[one.role] if name in one.on else UNABLE for one in loads if one.role != load.role
        ]
        mean = sum(others) / len(others) if others else 1.0
        return max(load.on[name], NO_LOAD) / least[load.role] / max(mean, NO_LOAD)

    return sorted(able, key=loss)


def cover(
    loads: Iterable[Load],
    placed: Mapping[str, Mapping[Role, float]],
    shared: Mapping[str, Mapping[Bundle, int]] | None = None,
) -> dict[Role, float]:
    """What multiple of its load each role can carry. The roles of a ``shared`` GPU have its time as each needs it."""
    some = list(loads)
    found: dict[Role, float] = {}
    for load in some:
        able = ((count.get(load.role, 0), load.on[name]) for name, count in placed.items() if name in load.on)
        found[load.role] = sum(workers / max(erlangs, NO_LOAD) for workers, erlangs in able)
    for name, bundles in (shared or {}).items():
        work = {load.role: load.on.get(name, 0.0) for load in some}
        for bundle, count in bundles.items():
            part = count / max(sum(work.get(role, 0.0) for role in bundle), NO_LOAD)
            found |= {role: found[role] + part for role in bundle if role in found}
    return found


def least_cover(
    loads: Iterable[Load],
    placed: Mapping[str, Mapping[Role, float]],
    shared: Mapping[str, Mapping[Bundle, int]] | None = None,
) -> float:
    """The multiple of the load that the whole can carry; infinite without load."""
    return min(cover(loads, placed, shared).values(), default=math.inf)


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
