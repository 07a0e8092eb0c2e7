"""Where workers are placed, and which of them become something else."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.domain import Role
from planner.run.fleet import UNKNOWN, NodeRoom, Seat, SlotPlan, by_worth, lay_out, slot_gpu

ENCODE, DENOISE, DECODE = (Role("m", stage) for stage in ("encode", "denoise", "decode"))
ONE, FOUR, EIGHT = NodeRoom("n1", (0,)), NodeRoom("n1", (0, 1, 2, 3)), NodeRoom("n1", tuple(range(8)))


def roles(plans: list[SlotPlan]) -> dict[tuple[str, str], str]:
    return {(plan.node, plan.slot): plan.role.stage for plan in plans}


def moved(before: list[SlotPlan], after: list[SlotPlan]) -> dict[tuple[str, str], str]:
    """What is not as it was."""
    return dict(roles(after).items() - roles(before).items())


def test_every_stage_gets_its_place_before_any_gets_two() -> None:
    plans = lay_out({ENCODE: 1, DENOISE: 2, DECODE: 1}, [FOUR])
    assert [(plan.slot, plan.role.stage, plan.gpu) for plan in plans] == [
        ("gpu0", "encode", 0),
        ("gpu1", "denoise", 1),
        ("gpu2", "decode", 2),
        ("gpu3", "denoise", 3),
    ]


def test_with_too_few_gpus_they_share_evenly() -> None:
    plans = lay_out({ENCODE: 2, DENOISE: 3, DECODE: 2}, [FOUR])
    assert Counter(plan.gpu for plan in plans) == {0: 2, 1: 2, 2: 2, 3: 1}
    assert [plan.slot for plan in plans[:2]] == ["gpu0", "gpu0-1"]
    assert {plan.gpu for plan in lay_out({ENCODE: 1, DENOISE: 1}, [ONE])} == {0}


def test_a_node_without_gpus_takes_any_number() -> None:
    assert roles(lay_out({ENCODE: 2}, [NodeRoom("n1")])) == {("n1", "cpu0"): "encode", ("n1", "cpu1"): "encode"}


def test_without_nodes_or_wishes_there_is_nothing_to_place() -> None:
    assert lay_out({ENCODE: 2}, []) == []
    assert lay_out({}, [FOUR]) == []
    assert lay_out({ENCODE: 0}, [FOUR]) == []


def test_raising_a_count_moves_nobody() -> None:
    before = lay_out({ENCODE: 1, DENOISE: 2, DECODE: 1}, [EIGHT])
    after = lay_out({ENCODE: 3, DENOISE: 2, DECODE: 1}, [EIGHT], before)
    assert moved(before, after) == {("n1", "gpu4"): "encode", ("n1", "gpu5"): "encode"}


def test_lowering_a_count_keeps_those_of_most_worth() -> None:
    before = lay_out({ENCODE: 3, DENOISE: 3}, [EIGHT])
    after = lay_out({ENCODE: 1, DENOISE: 3}, [EIGHT], before)
    assert roles(after).items() <= roles(before).items()
    assert len(after) == 4


@pytest.mark.parametrize("node", [EIGHT, NodeRoom("n1")])
def test_what_one_stage_loses_another_gains_without_a_new_place(node: NodeRoom) -> None:
    before = lay_out({ENCODE: 1, DENOISE: 6, DECODE: 1}, [node])
    after = lay_out({ENCODE: 1, DENOISE: 4, DECODE: 3}, [node], before)
    assert list(moved(before, after).values()) == ["decode", "decode"]
    assert roles(after).keys() == roles(before).keys()


def test_idle_ones_switch_before_busy_ones_and_those_that_load_before_both() -> None:
    names = [f"gpu{n}" for n in range(4)]
    seats = [Seat(SlotPlan("n1", slot, DENOISE, n), ready=True, tasks=2) for n, slot in enumerate(names)]
    seats[1] = Seat(seats[1].plan, ready=True)
    seats[2] = Seat(seats[2].plan)
    for decode, switched in ((1, {"gpu2"}), (2, {"gpu1", "gpu2"})):
        after = lay_out({DENOISE: 4 - decode, DECODE: decode}, [FOUR], by_worth(seats))
        assert {plan.slot for plan in after if plan.role == DECODE} == switched


def test_one_that_leaves_is_called_back_before_another_is_started() -> None:
    seats = [Seat(SlotPlan("n1", "cpu0", ENCODE), ready=True), Seat(SlotPlan("n1", "cpu1", DENOISE), leaving=True)]
    after = lay_out({ENCODE: 2}, [NodeRoom("n1")], by_worth(seats))
    assert roles(after) == {("n1", "cpu0"): "encode", ("n1", "cpu1"): "encode"}


def test_a_worker_whose_role_is_not_known_takes_what_is_missing() -> None:
    found = [SlotPlan("n1", "gpu2", UNKNOWN, 2), SlotPlan("n1", "gpu1", ENCODE, 1)]
    after = lay_out({ENCODE: 1, DENOISE: 1}, [FOUR], found)
    assert roles(after) == {("n1", "gpu1"): "encode", ("n1", "gpu2"): "denoise"}


def test_a_new_node_relieves_those_that_share() -> None:
    before = lay_out({ENCODE: 2, DENOISE: 2}, [NodeRoom("n1", (0, 1))])
    after = lay_out({ENCODE: 2, DENOISE: 2}, [NodeRoom("n1", (0, 1)), NodeRoom("n2", (0, 1))], before)
    assert len({(plan.node, plan.gpu) for plan in after}) == 4
    assert len(roles(before).items() & roles(after).items()) == 2


def test_a_lost_node_sends_its_roles_to_the_others() -> None:
    nodes = [NodeRoom("n1", (0, 1)), NodeRoom("n2", (0, 1))]
    before = lay_out({ENCODE: 2, DENOISE: 2}, nodes)
    after = lay_out({ENCODE: 2, DENOISE: 2}, nodes[:1], before)
    assert {plan.node for plan in after} == {"n1"}
    assert {item for item in roles(before).items() if item[0][0] == "n1"} <= roles(after).items()


# --- types of GPUs ---


H100, L4 = NodeRoom("n1", (0, 1), "H100"), NodeRoom("n2", (0, 1), "L4")


def test_shares_say_which_type_a_role_runs_on() -> None:
    plans = lay_out({ENCODE: 1, DENOISE: 2}, [L4, H100], shares={(DENOISE, "H100"): 2})
    assert {plan.node for plan in plans if plan.role == DENOISE} == {"n1"}


def test_a_share_moves_a_worker_to_its_type_and_the_one_there_elsewhere() -> None:
    before = lay_out({ENCODE: 2, DENOISE: 2}, [H100, L4], shares={(ENCODE, "H100"): 2})
    after = lay_out({ENCODE: 2, DENOISE: 2}, [H100, L4], before, {(DENOISE, "H100"): 1})
    assert Counter((p.node, p.role.stage) for p in after) == {
        ("n1", "encode"): 1, ("n1", "denoise"): 1, ("n2", "denoise"): 1, ("n2", "encode"): 1,
    }  # fmt: skip


def test_a_share_of_a_type_that_is_not_there_waits_for_it() -> None:
    plans = lay_out({ENCODE: 1, DENOISE: 2}, [L4], shares={(DENOISE, "H100"): 2})
    assert [plan.role for plan in plans] == [ENCODE]


def test_beyond_its_shares_a_role_prefers_the_types_it_has_a_share_of() -> None:
    plans = lay_out({DENOISE: 2}, [L4, H100], shares={(DENOISE, "H100"): 1})
    assert {plan.node for plan in plans} == {"n1"}


def test_a_share_takes_a_worker_to_spare_before_one_that_is_needed() -> None:
    before = [SlotPlan("n1", "gpu0", ENCODE, 0), SlotPlan("n1", "gpu1", DECODE, 1), SlotPlan("n2", "gpu0", ENCODE, 0)]
    after = lay_out({ENCODE: 1, DECODE: 1, DENOISE: 1}, [H100, L4], before, {(DENOISE, "H100"): 1})
    assert roles(after)["n1", "gpu1"] == "decode"
    assert roles(after)["n1", "gpu0"] == "denoise"


# --- always ---


@given(
    counts=st.lists(st.integers(0, 5), min_size=1, max_size=4),
    more=st.lists(st.integers(-3, 5), min_size=4, max_size=4),
    gpus=st.lists(st.integers(0, 4), min_size=1, max_size=3),
    shares=st.dictionaries(st.tuples(st.integers(0, 3), st.sampled_from(["a", "b", "c"])), st.integers(0, 3)),
)
def test_all_are_placed_no_place_has_more_than_its_share_and_as_few_as_possible_move(
    counts: list[int], more: list[int], gpus: list[int], shares: dict[tuple[int, str], int]
) -> None:
    nodes = [NodeRoom(f"n{i}", tuple(range(count)), "abc"[i]) for i, count in enumerate(gpus)]
    some = [Role("m", f"s{i}") for i in range(len(counts))]
    before = lay_out(dict(zip(some, counts, strict=True)), nodes)
    wanted = {role: max(0, count + extra) for role, count, extra in zip(some, counts, more, strict=False)}
    typed = {(Role("m", f"s{i}"), kind): count for (i, kind), count in shares.items()}
    for by_type in ({}, typed):
        after = lay_out(wanted, nodes, before, by_type)
        placed = Counter(plan.role for plan in after)
        assert placed <= Counter(wanted) if by_type else placed == Counter(wanted)
        assert len({(plan.node, plan.slot) for plan in after}) == len(after)
        assert all(slot_gpu(plan.slot) == plan.gpu for plan in after)
        load = Counter((plan.node, plan.gpu) for plan in after)
        even = -(-sum(wanted.values()) // sum(max(1, count) for count in gpus))
        asked = Counter({kind: sum(n for (_, of), n in by_type.items() if of == kind) for kind in "abc"})
        for (node, _), workers in load.items():
            own = "abc"[int(node[1:])]  # a type that many ask for holds them all, spread evenly over its own
            assert workers <= max(even, -(-asked[own] // max(1, gpus[int(node[1:])])))
    if sum(wanted.values()) >= sum(counts):
        stay = sum(min(wanted[role], count) for role, count in zip(some, counts, strict=True))
        assert len(roles(before).items() & roles(lay_out(wanted, nodes, before)).items()) == stay


@pytest.mark.parametrize(("slot", "gpu"), [("gpu0", 0), ("gpu12", 12), ("gpu3-1", 3), ("cpu0", None), ("head", None)])
def test_a_slot_names_what_it_is_on(slot: str, gpu: int | None) -> None:
    assert slot_gpu(slot) == gpu
