"""Which stage may run where: nobody is seated on a GPU that its spec or its memory excludes, alone or together."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.domain import Offer, Role, Shape
from planner.run.allocate import Load, least_cover, seat
from planner.run.config import PolicyConfig, RoleBounds
from planner.run.decisions import SetCounts
from planner.run.fleet import Bundle, NodeRoom, lay_out
from planner.run.observe import NodeCount, Observer, RoleState, Room
from planner.run.policy import Policy
from planner.run.rent import key_of
from planner.run.seating import Seating
from tests.planner_control.lab import DECODE, DENOISE, ENCODE, FOUR, LOAD_S, ONE, ROLES, expected

BOUNDS = {role: RoleBounds(role) for role in ROLES}
LOADS = [
    Load(ENCODE, {"H100": 0.1, "L4": 0.3}),
    Load(DENOISE, {"H100": 4.0}),
    Load(DECODE, {"H100": 0.8, "L4": 2.0}),
]
FITS = {
    "H100": frozenset({(ENCODE,), (DENOISE,), (DECODE,), (ENCODE, DENOISE, DECODE)}),
    "L4": frozenset({(ENCODE,), (DECODE,), (ENCODE, DECODE)}),
}


def test_the_picky_one_has_the_gpus_that_only_it_needs() -> None:
    found = seat(LOADS, BOUNDS, {"H100": 4, "L4": 3}, FITS)
    assert found == Seating({"H100": {DENOISE: 4}, "L4": {ENCODE: 1, DECODE: 2}})


def test_what_finds_no_gpu_of_its_own_shares_one_where_it_fits() -> None:
    found = seat(LOADS, BOUNDS, {"H100": 2, "L4": 1}, FITS)
    assert found.counts[ENCODE] == found.counts[DECODE] == 1
    assert found.alone["H100"][DENOISE] >= 1
    assert seat(LOADS, BOUNDS, {"H100": 1}, FITS).shared == {"H100": {(ENCODE, DENOISE, DECODE): 1}}


def test_without_a_gpu_that_it_fits_on_it_waits() -> None:
    assert seat(LOADS, BOUNDS, {"L4": 2}, FITS).counts == {ENCODE: 1, DECODE: 1}


def test_bundles_of_the_plan_stay_and_carry_their_part() -> None:
    shared: dict[str, dict[Bundle, int]] = {"H100": {(ENCODE, DENOISE, DECODE): 2}}
    found = seat(LOADS, BOUNDS, {"H100": 5}, FITS, shared)
    assert found.shared == shared
    assert sum(found.alone["H100"].values()) == 3
    assert least_cover(LOADS, {}, shared) == pytest.approx(2 / 4.9)
    assert seat(LOADS, BOUNDS, {"H100": 1}, FITS, shared).shared == {"H100": {(ENCODE, DENOISE, DECODE): 1}}


@given(st.integers(0, 9), st.integers(0, 9), st.integers(0, 3))
def test_nobody_is_where_it_may_not_be_and_no_gpu_is_given_out_twice(h100: int, l4: int, both: int) -> None:
    rooms = {"H100": h100, "L4": l4}
    found = seat(LOADS, BOUNDS, rooms, FITS, {"L4": {(ENCODE, DECODE): both}})
    assert all(count <= rooms[name] for name, count in found.gpus.items())
    for name, roles in found.alone.items():
        assert all((role,) in FITS[name] for role, count in roles.items() if count)
    for name, bundles in found.shared.items():
        assert all(any(set(bundle) <= set(one) for one in FITS[name]) for bundle in bundles)
    if h100 + l4 >= 3 and h100:
        assert set(found.counts) == set(ROLES)


# --- on nodes ---

H100S = NodeRoom("h", (0, 1, 2, 3), "H100")


def test_a_bundle_has_a_gpu_and_the_others_have_theirs() -> None:
    shares = {(ENCODE, "H100"): 1, (DENOISE, "H100"): 3, (DECODE, "H100"): 1}
    bundles: dict[tuple[Bundle, str], int] = {((ENCODE, DECODE), "H100"): 1}
    plans = lay_out({ENCODE: 1, DENOISE: 3, DECODE: 1}, [H100S], shares=shares, bundles=bundles)
    on = {gpu: sorted(p.role.stage for p in plans if p.gpu == gpu) for gpu in range(4)}
    assert sorted(on.values()) == [["decode", "encode"], ["denoise"], ["denoise"], ["denoise"]]
    assert lay_out({ENCODE: 1, DENOISE: 3, DECODE: 1}, [H100S], plans, shares, bundles) == plans
    fewer = lay_out({ENCODE: 1, DENOISE: 3, DECODE: 1}, [NodeRoom("h", (0, 1), "H100")], (), shares, bundles)
    assert [p.role for p in fewer].count(DENOISE) == 1, "the others wait for a GPU of their own"


# --- the policy ---


class RentedLab:
    """The policy on nodes of two types; what it decides is there at once."""

    def __init__(self, rooms: dict[str, int], seating: Seating, **config: object) -> None:
        self.rooms, self.coming, self.now = rooms, dict.fromkeys(rooms, 0), 0.0
        self.observer = Observer()
        settings = {"load_s": LOAD_S, "fits": FITS, "seating": seating, "workload": expected(FOUR, 4.0)}
        made = PolicyConfig(tuple(BOUNDS.values()), **{**settings, **config})  # type: ignore[arg-type]  # the lab's
        self.policy = Policy(made, _seconds)
        self.counts = seating.counts

    def tick(self) -> list[SetCounts]:
        self.now += 5.0
        states = tuple(RoleState(role, n, n, n) for role in ROLES for n in [self.counts.get(role, 0)])
        offers = {name: Offer("c", "r", name, name, 1, False, 1.0) for name in self.rooms}
        nodes = tuple(NodeCount(key_of(offers[name]), offers[name], n, n) for name, n in self.rooms.items())
        rooms = tuple(Room(name, n, self.coming[name]) for name, n in self.rooms.items())
        found = self.policy.decide(self.observer.take(states, rooms, nodes), self.now)
        made = [one for one in found if isinstance(one, SetCounts)]
        for one in made:
            self.counts = one.counts
        return made

    def requests(self, shape: Shape, count: int) -> None:
        for index in range(count):
            self.observer.arrived("wan", shape, self.now + index)
            for role in ROLES:
                self.observer.assigned(role, shape)


def _seconds(role: Role, accelerator: str, shape: Shape) -> float:
    slower = 2.5 if accelerator == "L4" else 1.0
    return slower * {"encode": 0.5, "denoise": 15.75 * shape.steps, "decode": 13.0}[role.stage]


PLANNED = Seating({"H100": {DENOISE: 5, DECODE: 1}, "L4": {ENCODE: 1, DECODE: 1}})


def test_the_plan_stands_until_the_work_changes_and_then_roles_move_where_they_may() -> None:
    lab = RentedLab({"H100": 6, "L4": 2}, PLANNED)
    for _ in range(10):
        lab.requests(FOUR, 5)
        assert lab.tick() == []
    found: list[SetCounts] = []
    for _ in range(40):
        lab.requests(ONE, 5)
        found += lab.tick()
    assert found
    assert found[0].why.code == "change"
    assert found[-1].by_gpu["H100"][DECODE] > 1
    assert all(DENOISE not in one.by_gpu.get("L4", {}) for one in found)


def test_while_the_planned_nodes_come_nothing_is_moved() -> None:
    lab = RentedLab({"H100": 2, "L4": 0}, PLANNED)
    lab.coming = {"H100": 4, "L4": 2}
    assert lab.tick() == []
    lab.rooms, lab.coming = {"H100": 6, "L4": 2}, {"H100": 0, "L4": 0}
    assert lab.tick() == []


def test_what_stood_on_a_lost_node_goes_where_it_may_until_another_comes() -> None:
    lab = RentedLab({"H100": 6, "L4": 2}, PLANNED)
    assert lab.tick() == []
    lab.rooms = {"H100": 6, "L4": 0}
    (found,) = lab.tick()
    assert found.why.code == "room"
    assert set(found.counts) == set(ROLES)
    assert all(found.counts.values())
    lab.rooms = {"H100": 0, "L4": 2}
    (found,) = lab.tick()
    assert found.counts[DENOISE] == 0, "it waits: there is nothing that it may run on"
