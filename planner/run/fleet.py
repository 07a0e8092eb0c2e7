"""Which worker goes where: from the wanted counts per role and the nodes there are, the slots of each node. Pure.

A slot is named ``<model>.<stage>.<n>``; the name is the worker's role, so that an agent and a log file say what they are for.
"""

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from planner.domain import Offer, Role


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
    """A worker wanted on a node."""

    node: str
    slot: str
    role: Role
    gpu: int | None = None


def slot_role(slot: str) -> Role:
    """The role named by a slot. Stage names have no dots; model names may."""
    model, stage, _ = slot.rsplit(".", 2)
    return Role(model, stage)


Shares = Mapping[tuple[Role, str], int]
Place = tuple[str, int | None]


def lay_out(
    wanted: Mapping[Role, int], nodes: Sequence[NodeRoom], before: Sequence[SlotPlan] = (), shares: Shares | None = None
) -> list[SlotPlan]:
    """Place ``wanted[role]`` workers per role. One worker a GPU while there are enough of them, else they share evenly.

    What ``before`` had placed stays where it is (``gpu`` None: on any of the node's), unless its place is gone or has more
    than its share. Lowering a count takes the highest numbers away. ``shares``: so many workers of a role stand on GPUs of
    that type and wait for one while there is none; any beyond that go anywhere.
    """
    names = _round_robin(wanted)
    load: dict[Place, int] = {}
    for node in nodes:
        load |= {(node.node, gpu): 0 for gpu in node.gpus or (None,)}
    if not load:
        return []
    was = {plan.slot: (plan.node, plan.gpu) for plan in before}
    at = _by_share(names, nodes, was, shares, load) if shares else {}
    waiting = _waiting(names, at, shares) if shares else set()
    names = [(role, n) for role, n in names if f"{role}.{n}" not in waiting]
    share = -(-len(names) // len(load))
    for slot in [f"{role}.{n}" for role, n in names if f"{role}.{n}" in was and f"{role}.{n}" not in at]:
        old_node, old_gpu = was[slot]
        same = [p for p in load if p[0] == old_node and old_gpu in (None, p[1]) and load[p] < share]
        if same:
            at[slot] = min(same, key=lambda place: load[place])
            load[at[slot]] += 1
    homes = {(role, node.node) for node in nodes for role, _ in names if (role, node.accelerator) in (shares or {})}
    for role, slot in [(role, f"{role}.{n}") for role, n in names if f"{role}.{n}" not in at]:
        # the first of the least loaded, on a GPU that the plan has for the role if there is one
        at[slot] = min(load, key=lambda place: ((role, place[0]) not in homes, load[place]))
        load[at[slot]] += 1
    return [SlotPlan(at[f"{role}.{n}"][0], f"{role}.{n}", role, at[f"{role}.{n}"][1]) for role, n in names]


def _by_share(
    names: Sequence[tuple[Role, int]], nodes: Sequence[NodeRoom], was: Mapping[str, Place], shares: Shares,
    load: dict[Place, int],
) -> dict[str, Place]:  # fmt: skip
    """The slots that shares speak of, placed; ``load`` counts them. Role after role, so that roles which share GPUs as a
    bundle meet on them instead of two of a kind."""
    at: dict[str, Place] = {}
    kinds = {node.node: node.accelerator for node in nodes}
    left = dict(shares)
    most = _most(load, kinds, shares)
    roles = list(dict.fromkeys(role for role, _ in names))
    by_role = sorted(names, key=lambda name: roles.index(name[0]))
    for stay in (True, False):
        for role, n in by_role:
            slot = f"{role}.{n}"
            if slot in at or (stay and slot not in was):
                continue
            open_kinds = [kind for (of, kind), count in left.items() if of == role and count > 0]
            fits = [p for p in load if kinds[p[0]] in open_kinds]
            if stay:
                fits = [p for p in fits if _stands(p, was[slot]) and load[p] < most[kinds[p[0]]]]
            if fits:
                at[slot] = min(fits, key=lambda place: (load[place], open_kinds.index(kinds[place[0]])))
                load[at[slot]] += 1
                left[role, kinds[at[slot][0]]] -= 1
    return at


def _most(load: Mapping[Place, int], kinds: Mapping[str, str], shares: Shares) -> dict[str, int]:
    """Workers that a GPU of each type holds when they are spread evenly."""
    places = [kinds[node] for node, _ in load]
    due = {kind: sum(count for (_, of), count in shares.items() if of == kind) for kind in places}
    return {kind: -(-due[kind] // places.count(kind)) for kind in due}


def _stands(place: Place, old: Place) -> bool:
    return place[0] == old[0] and old[1] in (None, place[1])


def _waiting(names: Sequence[tuple[Role, int]], at: Mapping[str, Place], shares: Shares) -> set[str]:
    """Slots for which a share is left but no GPU of its type is there yet."""
    due: dict[Role, int] = {}
    for (role, _), count in shares.items():
        due[role] = due.get(role, 0) + count
    for role, n in names:
        due[role] = due.get(role, 0) - (f"{role}.{n}" in at)
    waiting: set[str] = set()
    for role, n in names:
        if f"{role}.{n}" not in at and due[role] > 0:
            due[role] -= 1
            waiting.add(f"{role}.{n}")
    return waiting


def _round_robin(wanted: Mapping[Role, int]) -> list[tuple[Role, int]]:
    """First one of each role, then the second ones …: with few GPUs every stage gets its place before any gets two."""
    most = max(wanted.values(), default=0)
    return [(role, n) for n in range(most) for role, count in wanted.items() if n < count]


def surplus(present: Iterable[str], planned: Sequence[SlotPlan]) -> list[str]:
    """Slots that exist and are no longer wanted: drain them first."""
    wanted = {plan.slot for plan in planned}
    return [slot for slot in present if slot not in wanted]
