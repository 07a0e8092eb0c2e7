"""Generators do what they say, the same each time."""

import itertools
import statistics

import pytest

from planner.sim import traces
from planner.sim.rng import Rng
from planner.sim.scenario import Trace
from planner.sim.segments import segments


def gaps(trace: Trace) -> list[float]:
    return [after.at_s - before.at_s for before, after in itertools.pairwise(trace.rows)]


@pytest.mark.parametrize("name", traces.GENERATORS)
def test_generators_are_pure_and_in_order(name: str) -> None:
    make = traces.GENERATORS[name]
    assert make("wan", seed=2) == make("wan", seed=2)
    assert name == "paper" or make("wan", seed=2).rows != make("wan", seed=3).rows
    assert min(gaps(make("wan", seed=2))) >= 0


def test_the_papers_trace_changes_its_steps_after_a_quarter_of_an_hour() -> None:
    trace = traces.paper("wan")
    assert {row.shape.steps for row in trace.rows if row.at_s < 900} == {4}
    assert {row.shape.steps for row in trace.rows if row.at_s >= 900} == {1}
    (cut,) = segments(trace)
    assert cut == pytest.approx(900.0, abs=12.0)


@pytest.mark.parametrize("cv", [1.0, 2.0, 4.0])
def test_gamma_gaps_have_their_variation(cv: float) -> None:
    found = gaps(traces.gamma("wan", cv=cv, duration_s=200_000.0))
    assert statistics.stdev(found) / statistics.mean(found) == pytest.approx(cv, rel=0.1)
    assert statistics.mean(found) == pytest.approx(10.0, rel=0.1)


def test_an_mmpp_is_burstier_than_poisson() -> None:
    found = gaps(traces.mmpp("wan", duration_s=100_000.0))
    assert statistics.variance(found) / statistics.mean(found) ** 2 > 1.2


def test_the_day_has_its_hours() -> None:
    trace = traces.diurnal("wan", days=2.0, per_min=20.0)
    by_hour = [0] * 24
    for row in trace.rows:
        by_hour[int(row.at_s / 3600) % 24] += 1
    assert max(by_hour) > 20 * max(min(by_hour), 1)


def test_a_steady_trace_has_no_segments() -> None:
    assert segments(traces.gamma("wan")) == ()


def test_the_numbers_are_what_they_are() -> None:
    """SplitMix64's reference values for seed 1234567."""
    rng = Rng(1234567)
    assert [rng.bits() for _ in range(3)] == [6457827717110365317, 3203168211198807973, 9817491932198370423]


def test_draws_have_their_moments() -> None:
    rng = Rng(9)
    normal = [rng.normal() for _ in range(20_000)]
    assert statistics.mean(normal) == pytest.approx(0, abs=0.03)
    assert statistics.stdev(normal) == pytest.approx(1, abs=0.03)
    assert statistics.mean(rng.exponential(5.0) for _ in range(20_000)) == pytest.approx(5, rel=0.03)
    small = [rng.gamma(0.25, 8.0) for _ in range(40_000)]
    assert statistics.mean(small) == pytest.approx(8, rel=0.06)
    assert statistics.stdev(small) == pytest.approx(16, rel=0.08)
