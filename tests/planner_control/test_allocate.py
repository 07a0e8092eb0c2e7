"""The predictor's counts against full enumeration."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.domain import Role
from planner.run.allocate import Load, allocate, counts_of, least_cover, trim
from planner.run.config import RoleBounds
from tests.planner_control.lab import DECODE, DENOISE, ENCODE, FOUR, ONE, ROLES, seconds

BOUNDS = {role: RoleBounds(role) for role in ROLES}


def loads(shape: object) -> list[Load]:
    return [Load(role, {"H100": seconds(role, "H100", shape)}) for role in ROLES]  # type: ignore[arg-type]


@pytest.mark.parametrize(("shape", "ratio"), [(FOUR, (1, 5, 2)), (ONE, (1, 4, 3))])
def test_the_papers_ratios(shape: object, ratio: tuple[int, ...]) -> None:
    counts = counts_of(allocate(loads(shape), BOUNDS, {"H100": 8}))
    assert tuple(counts[role] for role in ROLES) == ratio


@given(st.lists(st.floats(0.01, 50.0), min_size=2, max_size=4), st.integers(2, 12))
def test_no_other_counts_cover_more(work: list[float], workers: int) -> None:
    roles = [Role("m", str(n)) for n in range(len(work))]
    given_loads = [Load(role, {"G": each}) for role, each in zip(roles, work, strict=True)]
    bounds = {role: RoleBounds(role) for role in roles}
    found = least_cover(given_loads, allocate(given_loads, bounds, {"G": workers}))
    if workers < len(roles):
        return
    best = max(
        least_cover(given_loads, {"G": dict(zip(roles, counts, strict=True))})
        for counts in itertools.product(range(1, workers + 1), repeat=len(roles))
        if sum(counts) == workers
    )
    assert found == pytest.approx(best)


def test_bounds_are_kept_and_what_is_over_stays_free() -> None:
    bounds = {ENCODE: RoleBounds(ENCODE, 2, 2), DENOISE: RoleBounds(DENOISE, 1, 3), DECODE: RoleBounds(DECODE, 1, 2)}
    counts = counts_of(allocate(loads(FOUR), bounds, {"H100": 20}))
    assert counts == {ENCODE: 2, DENOISE: 3, DECODE: 2}


def test_every_role_gets_its_least_even_without_room() -> None:
    counts = counts_of(allocate(loads(FOUR), BOUNDS, {"H100": 2}))
    assert counts == {ENCODE: 1, DENOISE: 1, DECODE: 1}


def test_roles_go_where_they_do_best() -> None:
    mixed = [
        Load(ENCODE, {"H100": 0.5, "L4": 0.6}),
        Load(DENOISE, {"H100": 63.0, "L4": 630.0}),
        Load(DECODE, {"H100": 13.0}),
    ]
    placed = allocate(mixed, BOUNDS, {"H100": 7, "L4": 1})
    assert placed["L4"] == {ENCODE: 1}
    assert placed["H100"] == {DENOISE: 5, DECODE: 2}


def test_where_a_role_cannot_run_it_is_not_put() -> None:
    only = [Load(ENCODE, {"L4": 1.0}), Load(DENOISE, {"H100": 10.0}), Load(DECODE, {"H100": 10.0, "L4": 40.0})]
    placed = allocate(only, BOUNDS, {"H100": 4, "L4": 4})
    assert DENOISE not in placed["L4"]
    assert ENCODE not in placed["H100"]


def test_what_does_not_fit_is_left_out_and_one_of_each_stays() -> None:
    assert trim({ENCODE: 1, DENOISE: 5, DECODE: 2}, 6) == {ENCODE: 1, DENOISE: 3, DECODE: 2}
    assert trim({ENCODE: 1, DENOISE: 5, DECODE: 2}, 9) == {ENCODE: 1, DENOISE: 5, DECODE: 2}
    assert trim({ENCODE: 1, DENOISE: 5, DECODE: 2}, 1) == dict.fromkeys(ROLES, 1)
