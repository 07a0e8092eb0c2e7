"""Which worker goes where and becomes what: from the wanted counts per role and the nodes there are. Pure.

A *slot* is a place for one worker process, named after what it runs on (``gpu0``, ``gpu0-1`` for a second worker that
shares it, ``gpu4_5`` for one that has two, ``cpu3``), so that the process may change its role and keep its name. What a
worker is for is the head's wish.
"""

import re
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec

from planner.domain import Offer, Role

UNKNOWN: Final = Role("", "")  # of a worker that has not said what it has loaded
_SLOT: Final = re.compile(r"gpu(\d+(?:_\d+)*)(?:-\d+)?")


Place = tuple[str, int | None]
Shares = Mapping[tuple[Role, str], int]  # workers of a role on GPUs of a type
Bundle = tuple[Role, ...]  # roles that share a GPU, a worker each, in the order of their stages
Bundles = Mapping[tuple[Bundle, str], int]  # GPUs of a type that hold a worker of each of these roles


class NodeWish(msgspec.Struct, frozen=True):
    """``count`` nodes of one kind. ``key`` names the wish and stays the same while its count changes.

    ``offers``: in the order in which to try them when one has no capacity; the first is what the plan meant.
    """

    key: str
    offers: tuple[Offer, ...]
    count: int


class NodeRoom(msgspec.Struct, frozen=True):
    """A node that can hold workers: its GPUs (indices), or none, and then any number of CPU workers.

    ``accelerator``: the type of its GPUs, "" where none was asked for (``infra: local``).
    """

    node: str
    gpus: tuple[int, ...] = ()
    accelerator: str = ""


class SlotPlan(msgspec.Struct, frozen=True):
    """A worker in a slot of a node, and its role. ``gpu``: the first of those it is on."""

    node: str
    slot: str
    role: Role
    gpu: int | None = None

    @property
    def gpus(self) -> tuple[int, ...]:
        """All GPUs it is on; none on the CPU."""
        return slot_gpus(self.slot)


class Seat(msgspec.Struct, frozen=True):
    """A worker that is there, or about to be. ``ready``: takes tasks; ``tasks`` it has; ``leaving``: drains to be ended."""

    plan: SlotPlan
    ready: bool = False
    tasks: int = 0
    leaving: bool = False


def slot_gpus(slot: str) -> tuple[int, ...]:
    """Indices of the GPUs that a slot is on; none: the CPU."""
    found = _SLOT.fullmatch(slot)
    return tuple(int(part) for part in found[1].split("_")) if found else ()


def slot_gpu(slot: str) -> int | None:
    """The first of them; None: the CPU."""
    return next(iter(slot_gpus(slot)), None)


def by_worth(seats: Iterable[Seat]) -> list[SlotPlan]:
    """In which order to keep workers in their role: those that serve before those that load, the busiest first.

    The last ones are quickest to become something else: nothing to finish, or nothing loaded yet.
    """
    return [s.plan for s in sorted(seats, key=lambda s: (s.leaving, not s.ready, -s.tasks, s.plan.node, s.plan.slot))]


def lay_out(
    wanted: Mapping[Role, int],
    nodes: Sequence[NodeRoom],
    before: Sequence[SlotPlan] = (),
    shares: Shares | None = None,
    bundles: Bundles | None = None,
) -> list[SlotPlan]:
    """Place ``wanted[role]`` workers per role. One worker a GPU while there are enough of them, else they share evenly.

    ``before``: workers there are, those first that should rather stay what they are (:func:`by_worth`). Each role keeps
    its first ones; a worker that is one too many takes over a role that lacks one (a *switch*), and only then are new
    places filled. ``shares``: of a role's workers so many on GPUs of that type; without room on one they wait, for what
    the role loads may fit no other. The rest go anywhere, if possible on types that the role has a share of.

    ``bundles``: GPUs that are to hold a worker of several roles; their workers are among the shares. When it is said (also
    empty), a share is never crowded: who finds no GPU of its type to itself waits.
    """
    shares = shares or {}
    chosen = _chosen(bundles or {}, wanted, nodes, before)
    if chosen:
        return _with_bundles(chosen, wanted, nodes, before, shares)
    demands = _demands(wanted, shares)
    table = _Table(nodes, [kind for _, kind in demands], before, crowd=bundles is None)
    if not table.load:
        return []
    anywhere = [role for role, kind in demands if kind is None]
    on_a_type = [(role, kind) for role, kind in demands if kind is not None]
    lacking = [demand for demand in on_a_type if not table.keep(*demand)]
    spare = table.spare(anywhere)
    for role, kind in lacking:
        _ = table.switch(role, kind, spare) or table.fill(role, kind) or table.switch(role, kind)
    for role in [role for role in anywhere if not table.keep(role)]:
        kinds = [*(kind for one, kind in shares if one == role), None]
        _ = any(table.switch(role, kind) or table.fill(role, kind) for kind in kinds)
    return table.plans()


class _Table:
    """Seats in rooms (a GPU, or a node without) while they are given out."""

    def __init__(
        self, nodes: Sequence[NodeRoom], kinds: Sequence[str | None], before: Sequence[SlotPlan], *, crowd: bool
    ) -> None:
        self.kind = {(n.node, gpu): n.accelerator for n in nodes for gpu in n.gpus or (None,)}
        self.load = dict.fromkeys(self.kind, 0)  # seats, given out or not
        self.most = _most(self.kind, kinds, crowd=crowd)
        self.given: dict[tuple[str, str], SlotPlan] = {}
        self.free: dict[tuple[str, str], SlotPlan] = {}  # that are there and not given out, the most worth first
        self.had: dict[tuple[Role, str | None], deque[SlotPlan]] = defaultdict(deque)  # by role, also by type of GPU
        for seat in before:
            room, key = (seat.node, seat.gpu), (seat.node, seat.slot)
            if room in self.load and self.load[room] < self.most[self.kind[room]] and key not in self.free:
                self.load[room] += 1
                self.free[key] = seat
                self.had[seat.role, None].append(seat)
                self.had[seat.role, self.kind[room]].append(seat)
        self.names = {(seat.node, seat.slot) for seat in before}

    def spare(self, rest: Sequence[Role]) -> dict[Role, int]:
        """How many seats of each role nobody will keep, if ``rest`` keep what they have."""
        left: dict[Role, int] = defaultdict(int)
        for seat in self.free.values():
            left[seat.role] += 1
        for role in rest:
            left[role] -= 1
        return left

    def keep(self, role: Role, kind: str | None = None) -> bool:
        """Leave a worker of the role what it is, on GPUs of this type (None: any)."""
        line = self.had[role, kind]
        while line:
            seat = line.popleft()
            if (seat.node, seat.slot) in self.free:
                self._give(seat, role)
                return True
        return False

    def switch(self, role: Role, kind: str | None = None, spare: dict[Role, int] | None = None) -> bool:
        """Have a worker become this; with ``spare`` only one of a role that has some to spare."""
        for seat in reversed(self.free.values()):
            if kind in (None, self.kind[seat.node, seat.gpu]) and (spare is None or spare[seat.role] > 0):
                if spare is not None:
                    spare[seat.role] -= 1
                self._give(seat, role)
                return True
        return False

    def fill(self, role: Role, kind: str | None = None) -> bool:
        """Start a worker in the least loaded room. False: none of that type has a place."""
        fit = (room for room in self.load if kind in (None, self.kind[room]))
        rooms = [room for room in fit if self.load[room] < self.most[self.kind[room]]]
        if not rooms:
            return False
        same = Counter(
            (seat.node, seat.gpu) for seat in (*self.given.values(), *self.free.values()) if seat.role == role
        )
        node, gpu = min(
            rooms, key=lambda room: (self.load[room], same[room])
        )  # a bundle is one of each, not two of a kind
        first = "cpu" if gpu is None else f"gpu{gpu}"
        slots = (f"cpu{n}" if gpu is None else first if n == 0 else f"{first}-{n}" for n in range(len(self.names) + 1))
        slot = next(slot for slot in slots if (node, slot) not in self.names)
        self.names.add((node, slot))
        self.load[node, gpu] += 1
        self._give(SlotPlan(node, slot, role, gpu), role)
        return True

    def plans(self) -> list[SlotPlan]:
        """All that was given out, room by room."""
        order = {room: place for place, room in enumerate(self.kind)}
        return sorted(self.given.values(), key=lambda p: (order[p.node, p.gpu], len(p.slot), p.slot))

    def _give(self, seat: SlotPlan, role: Role) -> None:
        key = (seat.node, seat.slot)
        self.free.pop(key, None)
        self.given[key] = SlotPlan(seat.node, seat.slot, role, seat.gpu)


def _most(rooms: Mapping[Place, str], kinds: Sequence[str | None], *, crowd: bool) -> dict[str, int]:
    """Seats in a room of each type when the workers are spread evenly, those that ask for a type over its rooms.

    Without ``crowd`` one for whoever asks for a type.
    """
    places, asked = Counter(rooms.values()), Counter(kinds)
    even = -(-len(kinds) // len(rooms)) if rooms and asked[None] else 0
    typed = {kind: -(-asked[kind] // count) for kind, count in places.items()}
    return {kind: max(even, count if crowd else min(count, 1)) for kind, count in typed.items()}


def _chosen(
    bundles: Bundles, wanted: Mapping[Role, int], nodes: Sequence[NodeRoom], before: Sequence[SlotPlan]
) -> dict[tuple[str, int], Bundle]:
    """Which GPUs hold bundles, and which of their roles: those that hold most of one already, then those that hold least, then
    those whose workers should stay (so not the one that a worker is leaving)."""
    kinds = {(n.node, gpu): n.accelerator for n in nodes for gpu in n.gpus}
    there: dict[tuple[str, int], list[Role]] = {room: [] for room in kinds}
    last = dict.fromkeys(kinds, 0)  # rank of a room's worker that is least worth keeping
    for rank, seat in enumerate(before):
        if seat.gpu is not None and (seat.node, seat.gpu) in there:
            there[seat.node, seat.gpu].append(seat.role)
            last[seat.node, seat.gpu] = rank
    left = dict(wanted)
    chosen: dict[tuple[str, int], Bundle] = {}
    rows = sorted(bundles.items(), key=lambda row: -len(row[0][0]))  # who holds more holds what is part of it, too
    for (bundle, kind), count in rows:
        for _ in range(count):
            free = [room for room, own in kinds.items() if own == kind and room not in chosen]
            roles = tuple(role for role in bundle if left.get(role, 0) > 0)
            if not free or not roles:
                break
            best = max(free, key=lambda room: (len(set(roles) & set(there[room])), -len(there[room]), -last[room]))
            chosen[best] = roles
            left |= {role: left[role] - 1 for role in roles}
    return chosen


def _with_bundles(
    chosen: Mapping[tuple[str, int], Bundle],
    wanted: Mapping[Role, int],
    nodes: Sequence[NodeRoom],
    before: Sequence[SlotPlan],
    shares: Shares,
) -> list[SlotPlan]:
    """The GPUs with bundles one by one, and the rest on the others."""
    kinds = {n.node: n.accelerator for n in nodes}
    left, open_shares = dict(wanted), dict(shares)
    found: list[SlotPlan] = []
    for (node, gpu), roles in chosen.items():
        room = NodeRoom(node, (gpu,), kinds[node])
        seats = [seat for seat in before if (seat.node, seat.gpu) == (node, gpu)]
        found += lay_out(dict.fromkeys(roles, 1), [room], seats)
        for role in roles:
            left[role] -= 1
            open_shares[role, kinds[node]] = max(open_shares.get((role, kinds[node]), 0) - 1, 0)
    others = [NodeRoom(n.node, tuple(g for g in n.gpus if (n.node, g) not in chosen), n.accelerator) for n in nodes]
    rooms = [own for own, whole in zip(others, nodes, strict=True) if own.gpus or not whole.gpus]
    seats = [seat for seat in before if seat.gpu is None or (seat.node, seat.gpu) not in chosen]
    found += lay_out(left, rooms, seats, open_shares, {})
    order = {n.node: at for at, n in enumerate(nodes)}
    return sorted(found, key=lambda p: (order[p.node], p.gpu or 0, len(p.slot), p.slot))


def _demands(wanted: Mapping[Role, int], shares: Mapping[tuple[Role, str], int]) -> list[tuple[Role, str | None]]:
    """First one of each role, then the second ones …: with few GPUs every stage gets its place before any gets two."""
    kinds: dict[Role, list[str]] = defaultdict(list)
    for (role, kind), count in shares.items():
        kinds[role] += [kind] * count
    most = max(wanted.values(), default=0)
    order = [(role, n) for n in range(most) for role, count in wanted.items() if n < count]
    return [(role, kinds[role][n] if n < len(kinds[role]) else None) for role, n in order]
