"""What the loop makes of whole traces: the promises that docs/control-loop.md states."""

import itertools
from collections.abc import Sequence

import msgspec
import pytest

from planner.domain import Role, Shape
from planner.run.decisions import Solve
from planner.run.fleet import NodeWish
from planner.run.observe import Planned
from planner.sim import traces
from planner.sim.baselines import best_for, statics
from planner.sim.compare import Comparison, compare, run_policy
from planner.sim.report import Run
from planner.sim.scenario import Trace
from planner.sim.world import World
from tests.planner_control.lab import DENOISE, FOUR, ONE, seconds
from tests.sim.service import scenario, steady


def named(made: Comparison, name: str) -> Run:
    found = made.named(name)
    assert found is not None
    return found


def test_the_papers_trace() -> None:
    made = compare(scenario(traces.paper("wan")))
    dynamic = named(made, "dynamic")
    for still in (named(made, "static:1:6:1"), named(made, "static:1:5:2")):
        assert dynamic.between(0, 900) >= still.between(0, 900)
        assert dynamic.between(900, 1801) >= still.between(900, 1801)
    assert (made.over(made.best_static) or 0) >= 1
    assert (made.over(named(made, "oracle")) or 0) >= 0.97
    assert max(dynamic.rebalances_s) <= 63 + 10  # one drain, one load
    assert [action.code for action in dynamic.actions] == ["change"]


def test_a_saturating_backlog_is_not_acted_on_before_its_turn() -> None:
    """First come, first served: the new requests queue behind hundreds of old ones."""
    rows = tuple(row for row in steady(FOUR, 20, 1800).rows)
    rows = tuple(msgspec.structs.replace(row, shape=FOUR if row.at_s < 900 else ONE) for row in rows)
    trace = Trace("flat", rows, (900.0,))
    made = compare(scenario(trace), ("dynamic", "static:1:6:1", "static:1:5:2"))
    for still in ("static:1:6:1", "static:1:5:2"):
        assert named(made, "dynamic").requests >= named(made, still).requests


def test_flips_every_minute_do_not_make_it_flap() -> None:
    made = compare(scenario(traces.flips("wan", per_min=6.5, duration_s=3600.0)), ("dynamic", "static"))
    dynamic = named(made, "dynamic")
    gaps = [later.at_s - earlier.at_s for earlier, later in itertools.pairwise(dynamic.actions)]
    assert all(gap >= 73 for gap in gaps)
    assert len(dynamic.actions) <= 6
    assert (dynamic.p95_kept({"wan": 300.0}) or 0) >= 0.95
    assert (made.over(made.best_static) or 0) >= 0.98


@pytest.mark.parametrize("factor", [3.0, 1 / 3])
def test_wrong_profiles_are_made_good(factor: float) -> None:
    def wrong(role: Role, accelerator: str, shape: Shape) -> float:
        return seconds(role, accelerator, shape) * (factor if role == DENOISE else 1.0)

    right = scenario(steady(ONE, 15, 1800))
    made = msgspec.structs.replace(right, predicted=wrong)
    first = best_for(msgspec.structs.replace(made, seconds=wrong), made.trace.rows[:20])
    assert first.counts != best_for(right, right.trace.rows[:20]).counts
    found = World(made, "dynamic", [(0.0, first)]).run()
    truth, _ = run_policy(right, "dynamic", "hybrid")
    assert found.between(300, 1800) >= 0.97 * truth.between(300, 1800)  # within five one-minute windows


@pytest.mark.parametrize("name", ["mixes", "gamma4", "mmpp", "steps"])
def test_hybrid_is_no_worse_than_its_parts(name: str) -> None:
    made = compare(scenario(traces.GENERATORS[name]("wan", seed=3)), ("dynamic", "reactive", "predict"))
    better = max(named(made, "reactive").requests, named(made, "predict").requests)
    assert named(made, "dynamic").requests >= 0.98 * better


def test_every_ratio_is_tried_and_large_fleets_by_the_best() -> None:
    made = scenario(traces.paper("wan"))
    assert len(statics(made)) == 21
    assert (1, 5, 2) in statics(made)
    large = scenario(traces.paper("wan"), workers=64)
    assert 3 <= len(statics(large)) <= 36
    assert all(sum(counts) == 64 for counts in statics(large))


def test_a_solver_that_fails_leaves_the_fleet_as_it_is() -> None:
    from planner.sim.world import Tools

    made = scenario(traces.steps("wan", per_min=30.0, duration_s=1800.0))
    made = msgspec.structs.replace(made, policy=msgspec.structs.replace(made.policy, elastic=True))
    asked: list[int] = []

    def solver(question: Solve, wished: Sequence[NodeWish]) -> Planned:
        assert wished
        asked.append(question.id)
        return Planned(asked[-1], error="no solver here")

    found, _ = run_policy(made, "dynamic", "hybrid", Tools(solver))
    assert asked
    assert len(asked) < 20
    assert all(action.kind == "counts" for action in found.actions)
