"""Seats that take several GPUs of a node each; they are given out before all others. Pure.

Such a seat's slot names all its GPUs (``gpu4_5_6_7``): adjacent ones where there are. They are nobody else's, but where nothing
says what the GPUs were rented for and no other is left.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from itertools import chain

from planner.domain import Role
from planner.run.fleet import Bundles, NodeRoom, Place, Shares, SlotPlan, lay_out

Widths = Mapping[Role, int]  # GPUs of each worker of a role; 1 where nothing is said


def seat_all(
    wanted: Mapping[Role, int],
    nodes: Sequence[NodeRoom],
    before: Sequence[SlotPlan] = (),
    shares: Shares | None = None,
    bundles: Bundles | None = None,
    widths: Widths | None = None,
) -> list[SlotPlan]:
    """As :func:`lay_out`, where the workers of some roles have several GPUs each (``widths``).

    Their seats come first, the widest before the others. Who is there stays; one that is too many takes another role of its
    width; and only then new seats are filled, where fewest workers have to leave. With ``shares`` workers of one GPU have to
    leave only if there is one elsewhere for them; without, they may have to share what is left, at worst those very
    GPUs. Who finds no seat waits. On nodes without GPUs a worker is a worker, however many processes it has.
    """
    single = [seat for seat in before if len(seat.gpus) < 2]
    wide = {role: count for role, count in wanted.items() if (widths or {}).get(role, 1) > 1}
    rooms = [node for node in nodes if node.gpus]
    if not wide or not widths or not rooms:
        return lay_out(wanted, nodes, single, shares, bundles)
    rest = {role: count for role, count in wanted.items() if role not in wide}
    table = _Table(rooms, before, widths, _keepers(rest, single))
    needed = _needed(shares, bundles or {}, wide) if shares else None
    demands = _demands(wide, shares or {}, {node.accelerator for node in rooms})
    demands.sort(key=lambda demand: (-widths[demand[0]], len(demand[1])))
    for role, kinds in [demand for demand in demands if not table.keep(*demand)]:
        _ = table.switch(role, kinds) or table.fill(role, kinds, needed)
    left = table.left(nodes)
    found = lay_out(rest, left or (() if shares else rooms), single, shares, bundles)
    order = {node.node: at for at, node in enumerate(nodes)}
    return sorted([*table.given, *found], key=lambda p: (order[p.node], p.gpu or 0, len(p.slot), p.slot))


def too_many(wanted: Mapping[Role, int], widths: Widths, gpus: int) -> str:
    """Which workers of several GPUs a node with so many does not hold, in words; "" when it holds all."""
    needs = {role: count * widths[role] for role, count in wanted.items() if count and widths.get(role, 1) > 1}
    if sum(needs.values()) <= gpus:
        return ""
    each = ", ".join(f"{wanted[role]} of {role.stage} with {widths[role]} GPUs" for role in needs)
    return f"{each}: {sum(needs.values())} GPUs, of {gpus}"


class _Table:
    """Seats of several GPUs while they are given out. ``kept``: where a worker of one GPU stays if it can."""

    def __init__(
        self, nodes: Sequence[NodeRoom], before: Sequence[SlotPlan], widths: Widths, kept: Collection[Place]
    ) -> None:
        self.nodes = {node.node: node for node in nodes}
        self.widths, self.kept = widths, kept
        self.given: list[SlotPlan] = []
        self.taken: set[Place] = set()  # by those
        self.there: list[SlotPlan] = []  # seats that are there and not given out, the most worth first
        self.used = {(seat.node, gpu) for seat in before for gpu in seat.gpus}
        once: set[Place] = set()
        for seat in before:
            places = {(seat.node, gpu) for gpu in seat.gpus}
            node = self.nodes.get(seat.node)
            if len(places) > 1 and node is not None and places <= _places(node) and not places & once:
                once |= places
                self.there.append(seat)

    def keep(self, role: Role, kinds: Collection[str]) -> bool:
        """Leave a worker of the role what it is, on GPUs of one of these types."""
        return self._give(role, kinds, [seat for seat in self.there if seat.role == role])

    def switch(self, role: Role, kinds: Collection[str]) -> bool:
        """Have a worker that has as many GPUs become this, the one of least worth."""
        return self._give(role, kinds, self.there[::-1])

    def fill(self, role: Role, kinds: Collection[str], needed: Mapping[str, int] | None) -> bool:
        """Take so many GPUs of a node. ``needed``: by workers of one GPU, of each type; None: those may share any."""
        choices = [
            (self._cost(node, gpus), at, gpus, node)
            for at, node in enumerate(self.nodes.values())
            if node.accelerator in kinds
            for gpus in self._windows(node, self.widths[role])
        ]
        for (leave, *_), _at, gpus, node in sorted(choices, key=lambda choice: choice[:3]):
            if leave and needed is not None and self._free(node.accelerator) - len(gpus) < needed[node.accelerator]:
                continue
            self._take(SlotPlan(node.node, "gpu" + "_".join(map(str, gpus)), role, gpus[0]))
            return True
        return False

    def left(self, nodes: Sequence[NodeRoom]) -> list[NodeRoom]:
        """The nodes with what is not taken; those without GPUs as they are."""
        rest = [
            NodeRoom(n.node, tuple(gpu for gpu in n.gpus if (n.node, gpu) not in self.taken), n.accelerator)
            for n in nodes
        ]
        return [own for own, whole in zip(rest, nodes, strict=True) if own.gpus or not whole.gpus]

    def _give(self, role: Role, kinds: Collection[str], seats: Sequence[SlotPlan]) -> bool:
        for seat in seats:
            free = all((seat.node, gpu) not in self.taken for gpu in seat.gpus)
            if free and len(seat.gpus) == self.widths[role] and self.nodes[seat.node].accelerator in kinds:
                self.there.remove(seat)
                self._take(SlotPlan(seat.node, seat.slot, role, seat.gpu))
                return True
        return False

    def _take(self, seat: SlotPlan) -> None:
        self.given.append(seat)
        self.taken |= {(seat.node, gpu) for gpu in seat.gpus}

    def _windows(self, node: NodeRoom, width: int) -> list[tuple[int, ...]]:
        """Adjacent GPUs that are not taken; and the best ones anywhere on the node."""
        free = [gpu for gpu in node.gpus if (node.node, gpu) not in self.taken]
        if len(free) < width:
            return []
        runs = [node.gpus[at : at + width] for at in range(len(node.gpus) - width + 1)]
        anywhere = sorted(free, key=lambda gpu: (self._cost(node, (gpu,)), gpu))[:width]
        return [*(run for run in runs if set(run) <= set(free)), tuple(sorted(anywhere))]

    def _cost(self, node: NodeRoom, gpus: Sequence[int]) -> tuple[int, bool, int]:
        """(GPUs whose workers would have to leave, whether they lie apart, GPUs that somebody has yet to leave)."""
        places = {(node.node, gpu) for gpu in gpus}
        at = node.gpus.index(gpus[0])
        apart = tuple(gpus) != node.gpus[at : at + len(gpus)]
        return len(places & set(self.kept)), apart, len(places & self.used)

    def _free(self, kind: str) -> int:
        all_of_kind = chain.from_iterable(_places(node) for node in self.nodes.values() if node.accelerator == kind)
        return len(set(all_of_kind) - self.taken)


def _places(node: NodeRoom) -> set[Place]:
    return {(node.node, gpu) for gpu in node.gpus}


def _keepers(wanted: Mapping[Role, int], seats: Sequence[SlotPlan]) -> set[Place]:
    """GPUs with a worker that may stay what it is: the first ones of each role."""
    left, found = dict(wanted), set[Place]()
    for seat in seats:
        if seat.gpu is not None and left.get(seat.role, 0) > 0:
            left[seat.role] -= 1
            found.add((seat.node, seat.gpu))
    return found


def _needed(shares: Shares, bundles: Bundles, wide: Collection[Role]) -> Counter[str]:
    """GPUs of each type that workers of one GPU are to have."""
    found = Counter[str]()
    for (role, kind), count in shares.items():
        found[kind] += count if role not in wide else 0
    for (bundle, kind), count in bundles.items():
        found[kind] -= count * (len(bundle) - 1)
    return found


def _demands(wide: Mapping[Role, int], shares: Shares, kinds: Collection[str]) -> list[tuple[Role, tuple[str, ...]]]:
    """Each seat that is wanted, with the types of GPU it may be on; beyond a role's shares any that it has a share of."""
    found: list[tuple[Role, tuple[str, ...]]] = []
    for role, count in wide.items():
        own = {kind: n for (of, kind), n in shares.items() if of == role}
        typed = [(kind,) for kind, n in own.items() for _ in range(n)][:count]
        some = tuple(sorted(own)) or tuple(sorted(kinds))
        found += [(role, each) for each in [*typed, *[some] * (count - len(typed))]]
    return found
