"""Limits of diversity in phases: tiny instances are taken for large ones, and held against their optimum."""

import pytest

from planner.plan import Plan, check, engine, plan
from tests.planner_plan.instances import tiny

DIVERSE = [seed for seed in range(40) if tiny(seed)[0].spot_share is not None or tiny(seed)[0].pool_share is not None]


@pytest.mark.parametrize("seed", DIVERSE[:12])
def test_a_plan_in_phases_keeps_every_rule_and_costs_no_less_than_the_optimum(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    request, _ = tiny(seed)
    best = plan(request, alternatives=False)
    monkeypatch.setattr(engine, "LARGE", -1)
    found = plan(request, alternatives=False)
    assert isinstance(found, Plan) == isinstance(best, Plan)
    if isinstance(found, Plan) and isinstance(best, Plan):
        assert check(request, found) == []
        assert found.usd_per_hour >= best.usd_per_hour - 1e-6
