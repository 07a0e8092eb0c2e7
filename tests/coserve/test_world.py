"""Runs on the virtual clock: everybody is served, pauses are bounded, mechanisms do what they are for."""

import pytest

from planner.domain import Role
from planner.run.orders import KINDS, Card, DispatchConfig, Kind
from planner.run.policies import make
from planner.run.policies.placement import Demand, Space, place, rederive
from planner.sim.coserve.report import Summary, images, videos
from planner.sim.coserve.workload import Arrival
from planner.sim.coserve.world import CoWorld
from planner.sim.rng import Rng
from tests.coserve.lab import ROLES, arrivals, gpus, laws

MAX_PAUSES = 3


def crowd(seed: int, count: int = 40) -> list[Arrival]:
    """More than two GPUs can do."""
    rng, now, rows = Rng(seed), 0.0, []
    for _ in range(count):
        now += rng.exponential(6.0)
        rows.append((now, "image" if rng.uniform() < 0.6 else "video"))
    return arrivals(*rows)


def run(rows: list[Arrival], config: DispatchConfig, count: int = 2) -> Summary:
    return CoWorld(rows, gpus(count), make(config, laws()), laws(), noise_sigma=0.02, seed=3).run()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_everybody_is_served_and_nobody_paused_too_often(kind: Kind, seed: int) -> None:
    found = run(crowd(seed), DispatchConfig(kind, max_pauses=MAX_PAUSES))
    assert found.unserved == 0
    assert len(found.served) == 40
    assert max(one.pauses for one in found.served) <= MAX_PAUSES


def test_a_run_repeats() -> None:
    config = DispatchConfig("genserve")
    assert run(crowd(1), config) == run(crowd(1), config)


def test_pausing_lets_an_image_through_and_the_video_is_still_on_time() -> None:
    rows = arrivals((0.0, "video"), (10.0, "image"), scale=5.0)
    paused, waited = (
        run(rows, DispatchConfig("genserve", preempt=preempt, elastic=False), 1) for preempt in (True, False)
    )
    assert paused.pauses == 1
    assert paused.attainment() == 1.0
    assert waited.attainment(images) == 0.0


def test_spreading_makes_a_video_that_one_gpu_cannot() -> None:
    rows = arrivals((0.0, "video"), scale=1.5)
    assert run(rows, DispatchConfig("genserve"), 8).attainment(videos) == 1.0
    assert run(rows, DispatchConfig("genserve", elastic=False), 8).attainment(videos) == 0.0


def test_weights_are_moved_where_nobody_has_them() -> None:
    stills = frozenset(role for role in ROLES if role.model == "image")
    fleet = gpus(2, stills)
    found = CoWorld(arrivals((0.0, "video")), fleet, make(DispatchConfig("trident"), laws()), laws()).run()
    assert len(found.served) == 1
    assert found.loads >= 3
    without = DispatchConfig("trident", placement=False)
    assert CoWorld(arrivals((0.0, "video")), gpus(2, stills), make(without, laws()), laws()).run().unserved == 1


def test_a_placement_fits_and_covers() -> None:
    demands = [Demand(Role("m", name), load, 30.0, 5.0) for name, load in (("a", 3.0), ("b", 1.0), ("c", 0.1))]
    plan = place(demands, dict.fromkeys(("x", "y", "z"), 79.0))
    assert all(len(roles) <= 2 for roles in plan.values())
    assert {role for roles in plan.values() for role in roles} == {one.role for one in demands}
    assert sum(Role("m", "a") in roles for roles in plan.values()) == 3


def test_a_move_must_pay_and_leaves_the_last_copy() -> None:
    a, b = Role("m", "a"), Role("m", "b")
    held = {"x": frozenset({a}), "y": frozenset({a}), "z": frozenset({b})}
    spaces = dict.fromkeys(held, Space(40.0))
    demands = [Demand(a, 0.5, 30.0), Demand(b, 2.0, 30.0)]
    move = rederive(demands, held, spaces, {a: 30.0, b: 30.0})
    assert move is not None
    assert (move.role, move.drop) == (b, (a,))
    assert rederive(demands, held, spaces, {a: 1e6, b: 1e6}) is None
    last = {"x": frozenset({a}), "z": frozenset({b})}
    assert rederive(demands, last, {"x": Space(40.0)}, {a: 1.0, b: 1.0}) is None


def test_a_move_goes_where_it_may_and_one_role_takes_anothers_place() -> None:
    a, b = Role("m", "a"), Role("m", "b")
    held = {"x": frozenset({a}), "y": frozenset({a}), "z": frozenset({b})}
    demands, load_s = [Demand(a, 0.0, 0.0), Demand(b, 2.0, 0.0)], {a: 1.0, b: 1.0}
    spaces = {
        "x": Space(0.0, Card("x", held["x"], loose=held["x"])),
        "y": Space(0.0, Card("y", held["y"], open_to=frozenset({b}), loose=held["y"])),
    }
    move = rederive(demands, held, spaces, load_s)
    assert move is not None
    assert (move.place, move.role, move.drop) == ("y", b, (a,))
    assert rederive(demands, held, {"x": spaces["x"]}, load_s) is None
