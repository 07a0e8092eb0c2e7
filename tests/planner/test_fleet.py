"""Where workers are placed."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.domain import Role
from planner.run.fleet import NodeRoom, SlotPlan, lay_out, slot_role, surplus

ENCODE, DENOISE, DECODE = (Role("m", stage) for stage in ("encode", "denoise", "decode"))
ONE, FOUR, EIGHT = NodeRoom("n1", (0,)), NodeRoom("n1", (0, 1, 2, 3)), NodeRoom("n1", tuple(range(8)))


def where(plans: list[SlotPlan]) -> dict[str, tuple[str, int | None]]:
    return {plan.slot: (plan.node, plan.gpu) for plan in plans}


def test_every_stage_gets_its_place_before_any_gets_two() -> None:
    plans = lay_out({ENCODE: 1, DENOISE: 2, DECODE: 1}, [FOUR])
    assert [(plan.slot, plan.gpu) for plan in plans] == [
        ("m.encode.0", 0),
        ("m.denoise.0", 1),
        ("m.decode.0", 2),
        ("m.denoise.1", 3),
    ]


def test_with_too_few_gpus_they_share_evenly() -> None:
    plans = lay_out({ENCODE: 2, DENOISE: 3, DECODE: 2}, [FOUR])
    assert Counter(plan.gpu for plan in plans).most_common() == [(0, 2), (1, 2), (2, 2), (3, 1)]
    assert {plan.gpu for plan in lay_out({ENCODE: 1, DENOISE: 1}, [ONE])} == {0}


def test_a_node_without_gpus_takes_any_number() -> None:
    assert where(lay_out({ENCODE: 2}, [NodeRoom("n1")])) == {"m.encode.0": ("n1", None), "m.encode.1": ("n1", None)}


def test_without_nodes_or_wishes_there_is_nothing_to_place() -> None:
    assert lay_out({ENCODE: 2}, []) == []
    assert lay_out({}, [FOUR]) == []
    assert lay_out({ENCODE: 0}, [FOUR]) == []


def test_raising_a_count_moves_nobody() -> None:
    before = lay_out({ENCODE: 1, DENOISE: 2, DECODE: 1}, [EIGHT])
    after = lay_out({ENCODE: 3, DENOISE: 2, DECODE: 1}, [EIGHT], before)
    assert where(before).items() <= where(after).items()
    assert len({plan.gpu for plan in after}) == 6


def test_lowering_a_count_takes_the_highest_numbers() -> None:
    before = lay_out({ENCODE: 3, DENOISE: 3}, [EIGHT])
    after = lay_out({ENCODE: 1, DENOISE: 3}, [EIGHT], before)
    assert where(after).items() <= where(before).items()
    assert set(where(before)) - set(where(after)) == {"m.encode.1", "m.encode.2"}


def test_a_new_node_relieves_those_that_share() -> None:
    before = lay_out({ENCODE: 2, DENOISE: 2}, [NodeRoom("n1", (0, 1))])
    after = lay_out({ENCODE: 2, DENOISE: 2}, [NodeRoom("n1", (0, 1)), NodeRoom("n2", (0, 1))], before)
    assert len(set(where(after).values())) == 4
    assert sum(where(before)[slot] == place for slot, place in where(after).items()) == 2


def test_a_lost_node_sends_its_slots_to_the_others() -> None:
    nodes = [NodeRoom("n1", (0, 1)), NodeRoom("n2", (0, 1))]
    before = lay_out({ENCODE: 2, DENOISE: 2}, nodes)
    after = lay_out({ENCODE: 2, DENOISE: 2}, nodes[:1], before)
    assert {plan.node for plan in after} == {"n1"}
    assert all(where(after)[plan.slot] == (plan.node, plan.gpu) for plan in before if plan.node == "n1")


def test_a_worker_whose_gpu_is_not_known_stays_on_its_node() -> None:
    nodes = [NodeRoom("n1", (0, 1)), NodeRoom("n2", (0, 1))]
    found = [SlotPlan("n2", "m.encode.0", ENCODE), SlotPlan("n2", "m.denoise.0", DENOISE)]
    assert where(lay_out({ENCODE: 1, DENOISE: 1}, nodes, found)) == {"m.encode.0": ("n2", 0), "m.denoise.0": ("n2", 1)}


@given(
    counts=st.lists(st.integers(0, 5), min_size=1, max_size=4),
    more=st.lists(st.integers(0, 5), min_size=4, max_size=4),
    gpus=st.lists(st.integers(0, 4), min_size=1, max_size=3),
)
def test_no_place_has_more_than_its_share(counts: list[int], more: list[int], gpus: list[int]) -> None:
    nodes = [NodeRoom(f"n{i}", tuple(range(count))) for i, count in enumerate(gpus)]
    roles = [Role("m", f"s{i}") for i in range(len(counts))]
    before = lay_out(dict(zip(roles, counts, strict=True)), nodes)
    wanted = {role: count + extra for role, count, extra in zip(roles, counts, more, strict=False)}
    after = lay_out(wanted, nodes, before)
    assert sorted(plan.slot for plan in after) == sorted(
        f"{r}.{n}" for r, count in wanted.items() for n in range(count)
    )
    places = sum(max(1, count) for count in gpus)
    load = Counter((plan.node, plan.gpu) for plan in after)
    assert max(load.values(), default=0) <= -(-len(after) // places)
    assert where(before).items() <= where(after).items()


@pytest.mark.parametrize("model", ["m", "Wan2.2-T2V", "a.b.c"])
def test_a_slot_names_its_role(model: str) -> None:
    assert slot_role(f"{model}.denoise.12") == Role(model, "denoise")


def test_surplus_is_what_nobody_planned() -> None:
    plans = lay_out({ENCODE: 1}, [FOUR])
    assert surplus(["m.encode.0", "m.encode.1"], plans) == ["m.encode.1"]
