"""Rented machines for workers of two GPUs each: who sits where, and again after one of them is lost."""

from pathlib import Path

from planner.domain import Offer, Role
from planner.run.fleet import NodeWish
from tests.nodes.cloud import L4, Cloud, Head

ENCODE, DENOISE = Role("m", "encode"), Role("m", "denoise")
PAIR = Offer("cloud", "east", "pair", "H100", 2, False, 8.0)
WISHES = (NodeWish("pairs", (PAIR,), 2), NodeWish("l4", (L4,), 1))


def seats(head: Head) -> dict[str, str]:
    return {f"{plan.node}.{plan.slot}": plan.role.stage for plan in head.engine.roster.plans}


async def test_a_lost_machine_is_replaced_and_its_workers_sit_on_the_new_one(cloud: Cloud, tmp_path: Path) -> None:
    head = Head(cloud, tmp_path / "db", WISHES)
    roster = head.engine.roster
    roster.wanted, roster.widths = {ENCODE: 1, DENOISE: 2}, {DENOISE: 2}
    roster.shares = {(DENOISE, "H100"): 2, (ENCODE, "L4"): 1}
    await head.turns(10)
    kinds = {machine.node: machine.offer.accelerator for machine in cloud.machines.values()}
    pairs = sorted(node for node, kind in kinds.items() if kind == "H100")
    (small,) = [node for node, kind in kinds.items() if kind == "L4"]
    first = {f"{small}.gpu0": "encode", **{f"{node}.gpu0_1": "denoise" for node in pairs}}
    assert seats(head) == first
    assert [wish.gpus for wish in roster.wishes(pairs[0])] == [()], "no driver shows any: they compute on the CPU"

    cloud.lose(pairs[0])
    await head.turns(3)
    del first[f"{pairs[0]}.gpu0_1"]
    assert seats(head) == first, "nobody else moves"
    await head.turns(15)
    (new,) = {machine.node for machine in cloud.machines.values()} - {small, pairs[1]}
    assert seats(head) == {**first, f"{new}.gpu0_1": "denoise"}
    head.close()
