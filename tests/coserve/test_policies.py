"""Whatever is seen, orders can be carried out; and each switch switches what it says."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.domain import Role
from planner.run.orders import KINDS, DispatchConfig, Instance, Job, Kind, Pause, Running, SetDegree, Start, View
from planner.run.policies import make
from planner.run.policies.genserve import admit
from planner.run.policies.knapsack import Knapsack, Option, choose
from tests.coserve.lab import ROLES, SHAPES, gpus, job, laws, views

NOW = 10.0
ELASTIC: tuple[Kind, ...] = ("genserve", "trident")


@settings(max_examples=60)
@given(view=views(), kind=st.sampled_from(KINDS))
def test_orders_fit_what_was_seen(view: View, kind: Kind) -> None:
    config = DispatchConfig(kind, max_pauses=2)
    orders = make(config, laws()).decide(view, NOW)
    idle = {one.worker: one for one in view.instances if one.credit}
    waiting = {one.request: one for one in view.pending}
    running = {task.jobs[0].request: task for task in view.running}
    for order in orders:
        if isinstance(order, Start):
            members = [waiting.pop(name) for name in order.requests]
            taken = [idle.pop(name) for name in (order.worker, *order.peers)]
            assert order.degree == len(taken)
            assert len({one.node for one in taken}) == 1
            assert len({one.role for one in members}) == 1
            assert all(one.role in at.residents for one in members for at in taken)
            assert len(members) == 1 or len({one.batch_key for one in members}) == 1
        if isinstance(order, Pause):
            assert all(one.pauses < config.max_pauses for one in running[order.request].jobs)
            assert not running[order.request].pausing
        if isinstance(order, SetDegree):
            task = running[order.request]
            assert order.degree == len(order.peers) + 1
            for name in set(order.peers) - set(task.peers):
                assert task.role in idle.pop(name).residents


@settings(max_examples=30)
@given(view=views(), kind=st.sampled_from(KINDS))
def test_decisions_repeat(view: View, kind: Kind) -> None:
    config = DispatchConfig(kind)
    assert make(config, laws()).decide(view, NOW) == make(config, laws()).decide(view, NOW)


@settings(max_examples=30)
@given(view=views(), kind=st.sampled_from(KINDS))
def test_switched_off_is_off(view: View, kind: Kind) -> None:
    config = DispatchConfig(kind, preempt=False, elastic=False, batch=False)
    for order in make(config, laws()).decide(view, NOW):
        assert not isinstance(order, Pause | SetDegree)
        assert not isinstance(order, Start) or (order.degree == 1 and len(order.requests) == 1)


def test_an_urgent_image_takes_a_videos_place() -> None:
    video = job("v", "video", 0, due_s=200.0)
    image = job("i", "image", 1, due_s=NOW + 4.0)
    at = tuple(gpu.instance() for gpu in gpus(1))
    at = tuple(type(one)(one.worker, one.node, "H100", one.residents, 0, (1,), True, 79.0) for one in at)
    view = View((image,), (Running("g0", (video,), NOW - 0.5),), at)
    for kind in ("edf", "least_laxity", "genserve"):
        orders = make(DispatchConfig(kind), laws()).decide(view, NOW)
        assert any(isinstance(order, Pause) and order.request == "v" for order in orders), kind


@pytest.mark.parametrize("kind", ELASTIC)
def test_a_lone_video_has_all_gpus(kind: Kind) -> None:
    view = View((job("v", "video", 0, due_s=100.0),), (), tuple(gpu.instance() for gpu in gpus(4)))
    (start,) = (order for order in make(DispatchConfig(kind), laws()).decide(view, 0.0) if isinstance(order, Start))
    assert start.degree == 4


def test_admission_gives_up_the_largest() -> None:
    rows = [(10.0, 8.0, "large"), (10.0, 2.0, "a"), (10.0, 3.0, "b")]
    assert admit(rows, 1, 0.0) == {"a", "b"}
    assert admit(rows, 2, 0.0) == {"large", "a", "b"}


@settings(max_examples=60)
@given(st.lists(st.lists(st.tuples(st.integers(1, 4), st.floats(-1, 3)), max_size=3), max_size=4), st.integers(0, 6))
def test_the_knapsack_is_exact(rows: list[list[tuple[int, float]]], capacity: int) -> None:
    groups = [[Option(0, 0.0), *(Option(size, value) for size, value in row)] for row in rows]
    picked = choose(groups, capacity)
    assert sum(one.size for one in picked) <= capacity

    def best(index: int, left: int) -> float:
        if index == len(groups):
            return 0.0
        return max(one.value + best(index + 1, left - one.size) for one in groups[index] if one.size <= left)

    assert sum(one.value for one in picked) == pytest.approx(best(0, capacity), abs=1e-6)


@given(st.lists(st.lists(st.tuples(st.integers(1, 4), st.floats(0, 3)), max_size=3), min_size=1), st.integers(0, 6))
def test_an_offer_tells_what_adding_brings(rows: list[list[tuple[int, float]]], capacity: int) -> None:
    sack = Knapsack(capacity)
    for row in rows:
        options = [Option(0, 0.5), *(Option(size, value) for size, value in row)]
        before, (gain, option) = sack.value, sack.offer(options)
        sack.add(options)
        assert sack.value == pytest.approx(before + 0.5 + gain, abs=1e-6)
        assert (option is None) == (gain < 1e-9)


def test_a_request_is_spread_within_the_node_that_has_most_room() -> None:
    video = tuple(job(f"r{index}", "video", index, due_s=30.0) for index in range(3))
    taken = {0: 3, 4: 1}  # of the first node three are in use, of the second one
    idle = [index for index in range(8) if index % 4 >= taken[index - index % 4]]
    at = tuple(
        Instance(f"g{index}", f"n{index // 4}", "H100", ROLES, int(index in idle), (1,), True, 79.0)
        for index in range(8)
    )
    running = (
        Running("g0", (video[0],), NOW, 2, ("g1",)),
        Running("g2", (video[1],), NOW),
        Running("g4", (video[2],), NOW),
    )
    view = View((job("v", "video", 9, due_s=100.0),), running, at)
    config = DispatchConfig("trident", preempt=False)
    (start,) = (order for order in make(config, laws()).decide(view, NOW) if isinstance(order, Start))
    assert {start.worker, *start.peers} <= {"g5", "g6", "g7"}
    assert start.degree == 2


def test_what_needs_one_gpu_leaves_whole_nodes_alone() -> None:
    at = tuple(
        Instance(f"g{index}", f"n{index // 4}", "H100", ROLES, int(index != 7), (1,), True, 79.0) for index in range(8)
    )
    decode = Job("d", Role("video", "decode"), SHAPES["video"], 0.0, 9, held_by="g0")
    view = View((decode,), (Running("g7", (job("r", "image", 0),), NOW),), at)
    orders = make(DispatchConfig("trident", elastic=False), laws()).decide(view, NOW)
    (start,) = (order for order in orders if isinstance(order, Start))
    assert start.worker in {"g4", "g5", "g6"}


def test_a_task_goes_on_where_it_has_more_gpus() -> None:
    at = tuple(
        Instance(f"g{index}", f"n{index // 4}", "H100", ROLES, int(index > 3), (1,), True, 79.0) for index in range(8)
    )
    small, large = job("s", "video", 0, left=5), job("l", "video", 1)
    running = (Running("g0", (small,), NOW, 2, ("g1",)), Running("g2", (large,), NOW, 2, ("g3",)))
    orders = make(DispatchConfig("trident"), laws()).decide(View((), running, at), NOW)
    assert [order.request for order in orders if isinstance(order, Pause)] == ["l"]
    assert not any(
        isinstance(order, Pause)
        for order in make(DispatchConfig("trident", preempt=False), laws()).decide(View((), running, at), NOW)
    )


def test_workers_of_one_stage_are_chosen_for_by_themselves() -> None:
    encode, denoise = frozenset({Role("image", "encode")}), frozenset({Role("image", "denoise")})
    idle = Instance("e", "n0", "H100", encode, 1, (1,), True, 79.0)
    busy = Instance("d", "n0", "H100", denoise, 0, (1,), True, 79.0)
    long = job("long", "image", 0, due_s=1000.0)
    view = View((job("urgent", "image", 1, due_s=NOW + 3.0),), (Running("d", (long,), NOW),), (idle, busy))
    orders = make(DispatchConfig("genserve"), laws()).decide(view, NOW)
    assert [order.request for order in orders if isinstance(order, Pause)] == ["long"]
