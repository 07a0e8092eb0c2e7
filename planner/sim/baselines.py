"""What the dynamic policy is measured against: every static ratio, and an oracle that knows the trace.

All share the same machines and pay the same drains and loads. The oracle is the best piecewise-constant schedule found that
may change counts when the trace does: candidates are tried in the simulator itself, segment by segment.
"""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import msgspec

from planner.domain import RequestClass, Role, Shape, Workload
from planner.run.allocate import Load, least_cover, seat
from planner.run.config import RoleBounds
from planner.run.decisions import Reason, SetCounts
from planner.run.seating import Seating
from planner.sim.report import Run
from planner.sim.scenario import Arriving, Scenario
from planner.sim.segments import segments
from planner.sim.world import Schedule, World

MOST_STATICS: Final = 36
CANDIDATES: Final = 4  # counts tried in a segment
PASSES: Final = 2
MOST_TRIES: Final = 160  # simulations spent on the oracle …
LEAST_TRIES: Final = 24
TRIED_REQUESTS: Final = 60_000  # … as many as make so many requests
OFFSETS_S: Final = (-60.0, -30.0, 30.0, 60.0, 120.0, 240.0, 480.0)  # of a change, against its segment's begin
WHY: Final = Reason("bounds", "scheduled")

Counts = tuple[int, ...]


def rooms_of(scenario: Scenario) -> dict[str, int]:
    """Workers by accelerator, on the nodes that are there at the begin."""
    rooms: dict[str, int] = {}
    for wish in scenario.nodes:
        offer = wish.offers[0]
        rooms[offer.accelerator] = rooms.get(offer.accelerator, 0) + wish.count * offer.count
    return rooms


def loads_of(scenario: Scenario, rows: Sequence[Arriving]) -> list[Load]:
    """Erlangs that these requests make, one a second, by role and accelerator."""
    kinds: dict[tuple[str, Shape], int] = {}
    for row in rows:
        kinds[row.model, row.shape] = kinds.get((row.model, row.shape), 0) + 1
    found = []
    for role in scenario.roles:
        mine = [(count, shape) for (model, shape), count in kinds.items() if model == role.model]
        on = {
            name: sum(count * scenario.seconds(role, name, shape) for count, shape in mine) / max(len(rows), 1)
            for name in rooms_of(scenario)
            if _may(scenario, role, name)
        }
        found.append(Load(role, on))
    return found


def _may(scenario: Scenario, role: Role, name: str) -> bool:
    fits = scenario.policy.fits
    return fits is None or any(role in bundle for bundle in fits.get(name, ()))


def best_for(scenario: Scenario, rows: Sequence[Arriving]) -> SetCounts:
    """Counts that carry most of these requests, waiting and moving apart; bundles as the machines were planned for."""
    shared = scenario.policy.seating.shared if scenario.policy.seating is not None else {}
    found = seat(loads_of(scenario, rows), _bounds(scenario), rooms_of(scenario), scenario.policy.fits, shared)
    return _decision(scenario, found)


def _decision(scenario: Scenario, found: Seating) -> SetCounts:
    if scenario.policy.fits is None and len(found.alone) < 2:
        return SetCounts(found.counts, WHY)
    return SetCounts(found.counts, WHY, found.workers, {n: dict(bundles) for n, bundles in found.shared.items()})


def expected(rows: Sequence[Arriving], slo_s: Mapping[str, float]) -> Workload:
    """These requests as classes with rates, for a policy that has seen nothing yet."""
    span = max(rows[-1].at_s - rows[0].at_s, 1.0)
    kinds: dict[tuple[str, Shape], int] = {}
    for row in rows:
        kinds[row.model, row.shape] = kinds.get((row.model, row.shape), 0) + 1
    return Workload(tuple(RequestClass(m, shape, n / span, slo_s.get(m)) for (m, shape), n in kinds.items()))


def statics(scenario: Scenario) -> list[Counts]:
    """All ratios that fill the room, or where those are too many the best ones for the whole trace and for its parts."""
    total = sum(rooms_of(scenario).values())
    roles = len(scenario.roles)
    every = math.comb(total - 1, roles - 1) if total >= roles else 0
    if every <= MOST_STATICS:
        return [counts for counts in _compositions(total, roles) if _within(scenario, counts)] if every else []
    found: dict[Counts, None] = {}
    parts = [scenario.trace.rows, *_parts(scenario)]
    for rows in parts:
        found.update(dict.fromkeys(candidates(scenario, rows, max(3, MOST_STATICS // len(parts)))))
    return list(found)[:MOST_STATICS]


def candidates(scenario: Scenario, rows: Sequence[Arriving], most: int) -> list[Counts]:
    """Counts worth trying for these requests: the best, and those a worker or two away, by what they could carry."""
    loads = loads_of(scenario, rows)
    center = tuple(best_for(scenario, rows).counts.get(role, 0) for role in scenario.roles)
    near = {center}
    for _ in range(2):
        near |= {moved for counts in near for moved in _moves(counts)}
    roles = scenario.roles
    name = next(iter(rooms_of(scenario)))
    ranked = sorted(
        near, key=lambda counts: (-least_cover(loads, {name: dict(zip(roles, counts, strict=True))}), counts)
    )
    return [counts for counts in ranked if _within(scenario, counts)][:most]


def set_counts(scenario: Scenario, counts: Counts) -> SetCounts:
    """As a decision; where accelerators differ, roles go where they do best."""
    wanted = dict(zip(scenario.roles, counts, strict=True))
    rooms, fits = rooms_of(scenario), scenario.policy.fits
    if len(rooms) < 2 and fits is None:
        return SetCounts(wanted, WHY)
    exact = {role: RoleBounds(role, count, count) for role, count in wanted.items()}
    found = seat(loads_of(scenario, scenario.trace.rows), exact, rooms, fits)
    return msgspec.structs.replace(_decision(scenario, found), counts=wanted)


def planned(scenario: Scenario) -> tuple[str, SetCounts] | None:
    """The layout that the machines were planned for, where it has stages that share GPUs: it is a static ratio, too."""
    found = scenario.policy.seating
    if found is None or not found.shared:
        return None
    decision = _decision(scenario, found)
    return "static:" + ":".join(str(found.counts.get(role, 0)) for role in scenario.roles), decision


def run_still(scenario: Scenario, name: str, decision: SetCounts) -> Run:
    """The same layout all the time."""
    return World(_still(scenario), name, [(0.0, decision)]).run()


def run_static(scenario: Scenario, counts: Counts) -> Run:
    """The same counts all the time."""
    return run_still(scenario, "static:" + ":".join(map(str, counts)), set_counts(scenario, counts))


class Oracle:
    """Searches for the best schedule. ``known``: runs that may be no better than it (statics, and what the policies did)."""

    def __init__(self, scenario: Scenario, known: Sequence[tuple[Run, Schedule]]) -> None:
        self._scenario = _still(scenario)
        self._full = scenario
        self.best, self.schedule = max(known, key=lambda one: merit(one[0], scenario))
        self._tries = 0
        share = TRIED_REQUESTS // max(len(scenario.trace.rows), 1)
        self._budget = min(max(share, LEAST_TRIES), MOST_TRIES)

    def search(self) -> Run:
        """Coordinate ascent over segments: counts, then the moments of change."""
        begins = (0.0, *self._cuts())
        parts = _parts(self._full) or [self._full.trace.rows]
        options = [candidates(self._full, rows, CANDIDATES) for rows in parts]
        if not all(options):
            return msgspec.structs.replace(self.best, name="oracle")
        self._try([(at, tops[0]) for at, tops in zip(begins, options, strict=True)])
        current = [(at, _counts_at(self.schedule, at, self._full.roles)) for at in begins]
        for _ in range(PASSES):
            before = self.best
            for index, tops in enumerate(options):
                for counts in tops:
                    changed = [*current[:index], (current[index][0], counts), *current[index + 1 :]]
                    if self._try(changed):
                        current = changed
            for index in range(1, len(current)):
                for offset in OFFSETS_S:
                    moved = (max(begins[index] + offset, 1.0), current[index][1])
                    changed = [*current[:index], moved, *current[index + 1 :]]
                    if self._try(changed):
                        current = changed
            if self.best is before:
                break
        return msgspec.structs.replace(self.best, name="oracle")

    def _try(self, steps: list[tuple[float, Counts]]) -> bool:
        if self._tries >= self._budget:
            return False
        self._tries += 1
        schedule: list[tuple[float, SetCounts]] = []
        last: Counts | None = None
        for at, counts in sorted(steps):
            if counts != last:
                schedule.append((at, set_counts(self._full, counts)))
                last = counts
        run = World(self._scenario, "oracle", schedule).run()
        if merit(run, self._full) > merit(self.best, self._full):
            self.best, self.schedule = run, schedule
            return True
        return False

    def _cuts(self) -> tuple[float, ...]:
        return cuts_of(self._full)


def merit(run: Run, scenario: Scenario) -> tuple[float, float, float]:
    """More requests first; among equals promises kept, then speed."""
    mean = sum(one.latency_s for one in run.ended) / len(run.ended) if run.ended else math.inf
    return run.requests, run.attainment(scenario.slo_s) or 0.0, -mean


def cuts_of(scenario: Scenario) -> tuple[float, ...]:
    """When the trace changes: as its generator says, else as can be seen."""
    return scenario.trace.changes_s or segments(scenario.trace)


def schedule_of(run: Run, first: SetCounts) -> Schedule:
    """What a policy did, as a schedule."""
    steps = [(a.at_s, SetCounts(dict(zip(run.roles, a.counts, strict=True)), WHY)) for a in run.actions if a.counts]
    return [(0.0, first), *steps]


def _parts(scenario: Scenario) -> list[tuple[Arriving, ...]]:
    edges = (0.0, *cuts_of(scenario), math.inf)
    rows = scenario.trace.rows
    parts = [tuple(r for r in rows if begin <= r.at_s < end) for begin, end in itertools.pairwise(edges)]
    return [part or rows for part in parts]


def _counts_at(schedule: Schedule, at_s: float, roles: Sequence[Role]) -> Counts:
    known = [decision for when, decision in schedule if when <= at_s + max(OFFSETS_S)] or [schedule[0][1]]
    return tuple(known[-1].counts.get(role, 0) for role in roles)


def _still(scenario: Scenario) -> Scenario:
    config = msgspec.structs.replace(scenario.policy, mode="static", elastic=False)
    return msgspec.structs.replace(scenario, policy=config)


def _bounds(scenario: Scenario) -> dict[Role, RoleBounds]:
    return {bound.role: bound for bound in scenario.policy.roles}


def _within(scenario: Scenario, counts: Counts) -> bool:
    bounds = _bounds(scenario)
    pairs = ((bounds[role], count) for role, count in zip(scenario.roles, counts, strict=True))
    if not all(count >= max(b.least, 1) and (b.most is None or count <= b.most) for b, count in pairs):
        return False
    if scenario.policy.fits is None:
        return True
    placed = set_counts(scenario, counts).by_gpu  # what may not run where has no seat
    return all(sum(n.get(r, 0) for n in placed.values()) == c for r, c in zip(scenario.roles, counts, strict=True))


def _compositions(total: int, parts: int) -> Iterator[Counts]:
    """Every way to share so many workers among so many roles, one at least each."""
    for bars in itertools.combinations(range(1, total), parts - 1):
        edges = (0, *bars, total)
        yield tuple(b - a for a, b in itertools.pairwise(edges))


def _moves(counts: Counts) -> Iterator[Counts]:
    for giver, taker in itertools.permutations(range(len(counts)), 2):
        if counts[giver] > 1:
            moved = list(counts)
            moved[giver], moved[taker] = moved[giver] - 1, moved[taker] + 1
            yield tuple(moved)
