"""Whatever is seen, orders can be carried out; and each switch switches what it says."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.run.orders import KINDS, DispatchConfig, Kind, Pause, SetDegree, Start, View
from planner.run.policies import make
from planner.run.policies.genserve import admit
from planner.run.policies.knapsack import Option, choose
from tests.coserve.lab import gpus, job, laws, views

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
    from planner.run.orders import Running

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


def test_workers_of_one_stage_are_chosen_for_by_themselves() -> None:
    from planner.domain import Role
    from planner.run.orders import Instance, Running

    encode, denoise = frozenset({Role("image", "encode")}), frozenset({Role("image", "denoise")})
    idle = Instance("e", "n0", "H100", encode, 1, (1,), True, 79.0)
    busy = Instance("d", "n0", "H100", denoise, 0, (1,), True, 79.0)
    long = job("long", "image", 0, due_s=1000.0)
    view = View((job("urgent", "image", 1, due_s=NOW + 3.0),), (Running("d", (long,), NOW),), (idle, busy))
    orders = make(DispatchConfig("genserve"), laws()).decide(view, NOW)
    assert [order.request for order in orders if isinstance(order, Pause)] == ["long"]
