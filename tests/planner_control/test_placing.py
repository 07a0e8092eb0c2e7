"""A dispatch policy's wish that a worker change its role: when the control loop grants it, and what it then leaves alone."""

from typing import Any

import pytest

from planner.domain import Role
from planner.run.config import RoleBounds
from planner.run.decisions import SetCounts
from planner.run.effects import LoadRole
from planner.run.observe import RoleState
from planner.run.seating import Seating
from tests.planner_control.lab import DECODE, DENOISE, ENCODE, FOUR, ONE, ROLES, Lab, expected
from tests.planner_control.test_seating import RentedLab

WISH = LoadRole("w", DECODE, (DENOISE,), "a stage waits for it")


def lab_of(**config: Any) -> Lab:
    """One that has looked once, at a fleet that suits the work."""
    lab = Lab(workload=expected(FOUR, 4.7), placed=True, **config)
    lab.tick()
    return lab


def states(lab: Lab, **changes: dict[str, int]) -> list[RoleState]:
    plain = {"ready": 0, "coming": 0, "draining": 0}
    found = []
    for role in ROLES:
        said = plain | {"ready": lab.counts[role]} | changes.get(role.stage, {})
        found.append(RoleState(role, lab.counts[role], computing=0, **said))
    return found


def leeway(lab: Lab, pinned: dict[Role, int]) -> tuple[set[Role], set[Role]]:
    more, fewer = lab.policy.leeway(lab.counts, pinned)
    return set(more), set(fewer)


def place(lab: Lab, wish: LoadRole = WISH, gpu: str = "H100", **changes: dict[str, int]) -> SetCounts | None:
    found = lab.policy.place(wish, gpu, frozenset(wish.drop), states(lab, **changes), lab.pinned, lab.now)
    if isinstance(found, str):
        assert found, "it says why"
        return None
    lab.counts = dict(found.counts)
    return found


def test_a_wish_becomes_counts_with_its_reason() -> None:
    lab = lab_of()
    found = place(lab)
    assert found is not None
    assert lab.ratio == (1, 4, 3)
    assert (found.why.code, found.why.text) == ("placement", "a stage waits for it")


def test_the_loop_moves_nobody_while_the_dispatch_policy_does() -> None:
    lab = lab_of()
    before = lab.ratio
    lab.requests(ONE, 40, 60.0)
    lab.queued[DECODE] = 40
    assert lab.until(40) == []
    assert lab.ratio == before
    lab.workers = 9
    assert [one.why.code for one in lab.until(1)] == ["room"], "but it lays out what has come"
    lab.pinned = {ENCODE: 2}
    assert [one.why.code for one in lab.until(40)] == ["room"]
    assert lab.counts[ENCODE] == 2


def test_moves_wait_for_one_another() -> None:
    lab = lab_of()
    assert place(lab) is not None
    cooldown_s = lab.policy.view(lab.now).cooldown_s
    assert cooldown_s > 0
    lab.now += cooldown_s - 1
    assert place(lab) is None
    lab.now += 1
    back = LoadRole("w", DENOISE, (DECODE,), "the mix has shifted")
    assert place(lab, back) is not None
    assert lab.policy.view(lab.now).cooldown_s > 1.5 * cooldown_s, "the way back takes longer each time"


@pytest.mark.parametrize(
    "changes",
    [
        {"decode": {"coming": 1}},
        {"encode": {"draining": 1}},
        {"denoise": {"ready": 1}},
        {"decode": {"ready": 1}},
    ],
    ids=["somebody loads", "somebody drains", "the last that serves", "one of the role fails"],
)
def test_not_now(changes: dict[str, dict[str, int]]) -> None:
    assert place(lab_of(), WISH, "H100", **changes) is None


def test_what_a_person_or_the_spec_says_holds() -> None:
    bounds = (RoleBounds(ENCODE, 1, 1), RoleBounds(DENOISE, 5), RoleBounds(DECODE, 1, 2))
    lab = lab_of(roles=bounds)
    assert leeway(lab, {}) == ({DENOISE}, {DECODE})
    assert place(lab) is None, "it has its least"
    lab = lab_of()
    assert leeway(lab, {DENOISE: 5}) == ({ENCODE, DECODE}, {DECODE})
    assert leeway(lab, {DECODE: 2}) == ({ENCODE, DENOISE}, {DENOISE})
    lab.pinned = {DECODE: 2}
    assert place(lab) is None


def test_a_role_goes_where_it_fits_and_nowhere_else() -> None:
    lab = RentedLab({"H100": 5, "L4": 3}, Seating({"H100": {DENOISE: 5}, "L4": {ENCODE: 1, DECODE: 2}}), placed=True)
    assert lab.tick() == []
    there = [RoleState(role, count, count, 0) for role, count in lab.counts.items()]
    onto_l4 = LoadRole("w", DENOISE, (DECODE,), "no")
    decoder, denoiser = frozenset({DECODE}), frozenset({DENOISE})
    assert lab.policy.place(onto_l4, "L4", decoder, there, {}, lab.now) == f"{DENOISE} may not be on such a GPU"
    assert lab.policy.place(onto_l4, "H100", decoder, there, {}, lab.now) == "no GPU was to hold what this one does"
    assert lab.policy.place(WISH, "H100", decoder, there, {}, lab.now) == "the order does not suit the GPU"
    found = lab.policy.place(WISH, "H100", denoiser, there, {}, lab.now)
    assert isinstance(found, SetCounts)
    assert found.by_gpu == {"H100": {DENOISE: 4, DECODE: 1}, "L4": {ENCODE: 1, DECODE: 2}}


@pytest.mark.parametrize("config", [{"mode": "static"}, {"placed": False}])
def test_nobody_else_orders_moves(config: dict[str, Any]) -> None:
    lab = Lab(workload=expected(FOUR, 4.7), **{"placed": True, **config})
    lab.tick()
    assert place(lab) is None


def test_unknown_roles_are_no_wish() -> None:
    lab = lab_of()
    assert place(lab, LoadRole("w", Role("other", "denoise"), (DENOISE,), "")) is None
