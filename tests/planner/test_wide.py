"""Workers that have several GPUs of a node each: where they are put, and who has to leave for them."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.domain import Role
from planner.run.fleet import NodeRoom, SlotPlan, slot_gpu, slot_gpus
from planner.run.wide import seat_all, too_many

ENCODE, DENOISE, DECODE, OTHER = (Role("m", stage) for stage in ("encode", "denoise", "decode", "other"))
EIGHT = NodeRoom("n1", tuple(range(8)))
WIDE = {DENOISE: 2}


def at(plans: list[SlotPlan]) -> dict[str, str]:
    return {f"{plan.node}.{plan.slot}": plan.role.stage for plan in plans}


def test_several_gpus_are_taken_first_and_the_others_have_the_rest() -> None:
    plans = seat_all({ENCODE: 1, DENOISE: 2, DECODE: 1}, [EIGHT], widths={DENOISE: 3})
    assert at(plans) == {
        "n1.gpu0_1_2": "denoise", "n1.gpu3_4_5": "denoise", "n1.gpu6": "encode", "n1.gpu7": "decode",
    }  # fmt: skip
    assert plans[0].gpus == (0, 1, 2)
    assert at(seat_all({ENCODE: 1, DENOISE: 1}, [NodeRoom("n1", (3, 5, 6))], widths=WIDE)) == {
        "n1.gpu3_5": "denoise",
        "n1.gpu6": "encode",
    }, "of those there are"


def test_with_no_gpu_left_the_others_share_theirs_on_this_machine_and_wait_on_rented_ones() -> None:
    two, wanted = NodeRoom("n1", (0, 1)), {ENCODE: 1, DENOISE: 1, DECODE: 1}
    assert at(seat_all(wanted, [two], widths=WIDE)) == {
        "n1.gpu0_1": "denoise", "n1.gpu0": "encode", "n1.gpu1": "decode",
    }  # fmt: skip
    shares = {(role, ""): count for role, count in wanted.items()}
    assert at(seat_all(wanted, [two], shares=shares, widths=WIDE)) == {"n1.gpu0_1": "denoise"}
    three = NodeRoom("n1", (0, 1, 2))
    assert at(seat_all(wanted, [three], shares=shares, widths=WIDE)) == {
        "n1.gpu0_1": "denoise", "n1.gpu2": "encode", "n1.gpu2-1": "decode",
    }, "while a node is away"  # fmt: skip


def test_no_two_of_them_share_and_who_finds_none_waits() -> None:
    plans = seat_all({DENOISE: 3}, [NodeRoom("n1", (0, 1, 2, 3, 4))], widths=WIDE)
    assert at(plans) == {"n1.gpu0_1": "denoise", "n1.gpu2_3": "denoise"}
    assert seat_all({DENOISE: 1}, [NodeRoom("n1", (0,)), NodeRoom("n2", (0,))], widths=WIDE) == [], "of one node"


def test_the_cpu_has_no_gpus_to_divide() -> None:
    assert at(seat_all({DENOISE: 2}, [NodeRoom("n1")], widths=WIDE)) == {"n1.cpu0": "denoise", "n1.cpu1": "denoise"}


def test_a_new_one_goes_where_fewest_have_to_leave() -> None:
    before = seat_all({ENCODE: 1, DENOISE: 2, DECODE: 1}, [NodeRoom("n1", (0, 1, 2, 3))])
    assert before[3].role == DENOISE
    four = NodeRoom("n1", (0, 1, 2, 3))
    after = seat_all({ENCODE: 1, DENOISE: 1, DECODE: 1}, [four], before, widths=WIDE)
    assert at(after) == {"n1.gpu0": "encode", "n1.gpu1_3": "denoise", "n1.gpu2": "decode"}, "apart, but nobody moves"
    after = seat_all({ENCODE: 1, DENOISE: 1, DECODE: 1}, [four], before, widths={DENOISE: 3})
    assert at(after) == {"n1.gpu0": "encode", "n1.gpu0-1": "decode", "n1.gpu1_2_3": "denoise"}


def test_one_that_is_too_many_becomes_another_of_its_width() -> None:
    widths = {DENOISE: 2, OTHER: 2, DECODE: 4}
    before = seat_all({DENOISE: 3}, [EIGHT], widths=widths)
    after = seat_all({DENOISE: 1, OTHER: 2}, [EIGHT], before, widths=widths)
    assert at(after) == {"n1.gpu0_1": "denoise", "n1.gpu2_3": "other", "n1.gpu4_5": "other"}
    after = seat_all({DENOISE: 1, DECODE: 1}, [EIGHT], before, widths=widths)
    assert at(after) == {"n1.gpu0_1": "denoise", "n1.gpu4_5_6_7": "decode"}, "a width of its own is a seat of its own"
    four = NodeRoom("n1", (0, 1, 2, 3))
    before = seat_all({DENOISE: 2}, [four], widths=widths)
    after = seat_all({DECODE: 1, OTHER: 1}, [four], before, widths=widths)
    assert at(after) == {"n1.gpu0_1_2_3": "decode"}, "not a seat whose GPUs a wider one has taken"


def test_another_width_and_none_are_other_seats() -> None:
    before = seat_all({ENCODE: 1, DENOISE: 1}, [EIGHT], widths={DENOISE: 4})
    assert at(seat_all({ENCODE: 1, DENOISE: 2}, [EIGHT], before, widths=WIDE)) == {
        "n1.gpu4": "encode", "n1.gpu5_6": "denoise", "n1.gpu0_1": "denoise",
    }, "first where nobody is"  # fmt: skip
    assert at(seat_all({ENCODE: 1, DENOISE: 1}, [EIGHT], before)) == {"n1.gpu4": "encode", "n1.gpu0": "denoise"}


# --- rented ---


PAIRS = [NodeRoom(f"h{n}", (0, 1), "H100") for n in (1, 2)]
L4S = NodeRoom("l", (0, 1), "L4")
SHARES = {(DENOISE, "H100"): 1, (ENCODE, "H100"): 1, (DECODE, "L4"): 2}
WANTED = {ENCODE: 1, DENOISE: 1, DECODE: 2}


def test_they_stand_on_the_type_that_was_rented_for_them() -> None:
    plans = seat_all(WANTED, [L4S, *PAIRS], shares=SHARES, widths=WIDE)
    assert at(plans) == {"l.gpu0": "decode", "l.gpu1": "decode", "h1.gpu0_1": "denoise", "h2.gpu0": "encode"}
    more = seat_all({**WANTED, DENOISE: 3}, [L4S, *PAIRS], shares=SHARES, widths=WIDE)
    assert Counter(at(more).values())["denoise"] == 2, "never on another type, and not on the encoder's"


def test_a_lost_node_is_waited_for_and_nobody_is_driven_out() -> None:
    plans = seat_all(WANTED, [L4S, *PAIRS], shares=SHARES, widths=WIDE)
    left = [plan for plan in plans if plan.node != "h1"]
    assert seat_all(WANTED, [L4S, PAIRS[1]], left, SHARES, None, WIDE) == left
    new = NodeRoom("h3", (0, 1), "H100")
    assert at(seat_all(WANTED, [L4S, PAIRS[1], new], left, SHARES, None, WIDE)) == {
        **at(left), "h3.gpu0_1": "denoise",
    }  # fmt: skip


def test_who_is_in_the_way_moves_once_there_is_room_for_all() -> None:
    before = [SlotPlan("h1", "gpu0", ENCODE, 0), SlotPlan("h2", "gpu0", ENCODE, 0)]
    wanted, shares = {ENCODE: 2, DENOISE: 1}, {(ENCODE, "H100"): 2, (DENOISE, "H100"): 1}
    assert at(seat_all(wanted, PAIRS, before, shares, None, WIDE)) == {
        "h1.gpu0_1": "denoise", "h2.gpu0": "encode", "h2.gpu1": "encode",
    }  # fmt: skip
    wanted, shares = {ENCODE: 3, DENOISE: 1}, {(ENCODE, "H100"): 3, (DENOISE, "H100"): 1}
    assert set(at(seat_all(wanted, PAIRS, before, shares, None, WIDE)).values()) == {"encode"}


# --- always ---


@given(
    counts=st.lists(st.integers(0, 4), min_size=4, max_size=4),
    later=st.lists(st.integers(0, 4), min_size=4, max_size=4),
    wide=st.lists(st.integers(1, 4), min_size=4, max_size=4),
    gpus=st.lists(st.integers(1, 6), min_size=1, max_size=3),
    mode=st.sampled_from(["here", "rented", "exact"]),
)
def test_no_gpu_is_in_two_seats_the_width_is_kept_and_nothing_moves_needlessly(
    counts: list[int], later: list[int], wide: list[int], gpus: list[int], mode: str
) -> None:
    nodes = [NodeRoom(f"n{n}", tuple(range(count)), "x") for n, count in enumerate(gpus)]
    some = (ENCODE, DENOISE, DECODE, OTHER)
    widths = dict(zip(some, wide, strict=True))
    before: list[SlotPlan] = []
    for wanted in (dict(zip(some, counts, strict=True)), dict(zip(some, later, strict=True))):
        shares = {} if mode == "here" else {(role, "x"): count for role, count in wanted.items()}
        bundles: dict[tuple[tuple[Role, ...], str], int] | None = {} if mode == "exact" else None
        plans = seat_all(wanted, nodes, before, shares, bundles, widths)
        assert Counter(plan.role for plan in plans) <= Counter(wanted)
        assert len({(plan.node, plan.slot) for plan in plans}) == len(plans)
        assert all(plan.gpu == slot_gpu(plan.slot) for plan in plans)
        assert all(len(plan.gpus) == widths[plan.role] for plan in plans)
        assert all(set(plan.gpus) <= set(nodes[int(plan.node[1:])].gpus) for plan in plans)
        wide_ones = [(plan.node, gpu) for plan in plans if len(plan.gpus) > 1 for gpu in plan.gpus]
        single = [(plan.node, plan.gpu) for plan in plans if len(plan.gpus) == 1]
        assert len(set(wide_ones)) == len(wide_ones)
        room = sum(gpus) - len(wide_ones)
        if mode != "here" or room:
            assert not set(wide_ones) & set(single)
        if mode == "exact":
            assert len(set(single)) == len(single)
        assert seat_all(wanted, nodes, plans, shares, bundles, widths) == plans
        stayed = {(plan.node, plan.slot, plan.role) for plan in before if len(plan.gpus) > 1}
        for role in (role for role in some if widths[role] > 1):
            had = [seat for seat in stayed if seat[2] == role]
            has = {(plan.node, plan.slot, plan.role) for plan in plans}
            assert len(has & set(had)) == min(len(had), wanted[role])
        before = plans


@pytest.mark.parametrize(
    ("slot", "gpus"), [("gpu0", (0,)), ("gpu3-1", (3,)), ("gpu4_5_11", (4, 5, 11)), ("cpu0", ()), ("gpu_1", ())]
)
def test_a_slot_names_all_that_it_is_on(slot: str, gpus: tuple[int, ...]) -> None:
    assert slot_gpus(slot) == gpus


def test_what_a_node_does_not_hold() -> None:
    assert too_many({DENOISE: 2, ENCODE: 9}, WIDE, 4) == ""
    assert too_many({DENOISE: 2, ENCODE: 1}, WIDE, 3) == "2 of denoise with 2 GPUs: 4 GPUs, of 3"
