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


def lay_out(wanted: Mapping[Role, int], nodes: Sequence[NodeRoom], before: Sequence[SlotPlan] = ()) -> list[SlotPlan]:
    """Place ``wanted[role]`` workers per role. One worker a GPU while there are enough of them, else they share evenly.

    What ``before`` had placed stays where it is (``gpu`` None: on any of the node's), unless its place is gone or has more
    than its share. Lowering a count takes the highest numbers away.
    """
    names = _round_robin(wanted)
    load: dict[tuple[str, int | None], int] = {}
    for node in nodes:
        load |= {(node.node, gpu): 0 for gpu in node.gpus or (None,)}
    if not load:
        return []
    share = -(-len(names) // len(load))
    was = {plan.slot: (plan.node, plan.gpu) for plan in before}
    at: dict[str, tuple[str, int | None]] = {}
    for slot in [f"{role}.{n}" for role, n in names if f"{role}.{n}" in was]:
        old_node, old_gpu = was[slot]
        same = [p for p in load if p[0] == old_node and old_gpu in (None, p[1]) and load[p] < share]
        if same:
            at[slot] = min(same, key=lambda place: load[place])
            load[at[slot]] += 1
    for slot in [f"{role}.{n}" for role, n in names if f"{role}.{n}" not in at]:
        at[slot] = min(load, key=lambda place: load[place])  # the first of the least loaded
        load[at[slot]] += 1
    return [SlotPlan(at[f"{role}.{n}"][0], f"{role}.{n}", role, at[f"{role}.{n}"][1]) for role, n in names]


def _round_robin(wanted: Mapping[Role, int]) -> list[tuple[Role, int]]:
    """First one of each role, then the second ones …: with few GPUs every stage gets its place before any gets two."""
    most = max(wanted.values(), default=0)
    return [(role, n) for n in range(most) for role, count in wanted.items() if n < count]


def surplus(present: Iterable[str], planned: Sequence[SlotPlan]) -> list[str]:
    """Slots that exist and are no longer wanted: drain them first."""
    wanted = {plan.slot for plan in planned}
    return [slot for slot in present if slot not in wanted]
