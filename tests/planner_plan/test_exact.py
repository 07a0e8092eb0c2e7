"""The optimum of tiny instances equals trying everything."""

import pytest

from planner.plan import Infeasible, Plan, check, plan
from planner.plan.build import TIE_USD, Model, build
from planner.plan.engine import open_scene
from planner.plan.highs import solve, solve_cbc
from planner.plan.level import Level, rules_of
from tests.planner_plan.brute import Brute
from tests.planner_plan.instances import tiny


@pytest.mark.parametrize("block", range(10))
def test_plans_equal_brute_force_and_pass_the_checker(block):
    feasible = 0
    for seed in range(block * 20, block * 20 + 20):
        request, stages = tiny(seed)
        answer = plan(request, alternatives=False)
        rules = rules_of(open_scene(request, 10).universe, Level(1.0, 1.0), {})
        best = Brute(request, stages, rules).best()
        if best is None:
            assert isinstance(answer, Infeasible), (seed, answer)
        else:
            assert isinstance(answer, Plan), (seed, best, answer)
            assert answer.usd_per_hour == pytest.approx(best, abs=1e-6), seed
            assert check(request, answer) == [], seed
            feasible += 1
    assert feasible >= 5


@pytest.mark.parametrize("seed", range(1000, 1040))
def test_with_an_slo_each_level_equals_brute_force(seed):
    request, stages = tiny(seed, slo=True)
    scene = open_scene(request, 10)
    for level in (Level(0.7, 1.4), Level(0.3, 1.0)):
        rules = rules_of(scene.universe, level, scene.quick)
        model = build(scene.universe, scene.market, rules)
        solution = solve(model.problem, 10) if isinstance(model, Model) else None
        best = Brute(request, stages, rules).best()
        if best is None:
            assert solution is None or not solution.values
        else:
            assert solution is not None
            assert isinstance(model, Model)
            ties = sum(TIE_USD * site.option.gpus * solution.values[site.count] for site in model.sites)
            assert solution.objective - ties == pytest.approx(best, abs=1e-6)


def test_cbc_agrees():
    for seed in range(8):
        scene = open_scene(tiny(seed)[0], 10)
        model = build(scene.universe, scene.market, rules_of(scene.universe, Level(1.0, 1.0), {}))
        if isinstance(model, Model):
            ours, theirs = solve(model.problem, 10), solve_cbc(model.problem, 10)
            assert bool(ours.values) == bool(theirs.values)
            assert not ours.values or ours.objective == pytest.approx(theirs.objective, abs=1e-5)
