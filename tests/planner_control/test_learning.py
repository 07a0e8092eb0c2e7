"""Rates, mixes, service times and forecasts."""

import math

import pytest

from planner.domain import Shape
from planner.run.forecast import BIN_S, Trend, ewma, holt_winters, naive
from planner.run.observe import MOST_EVENTS, Completion, Observer
from planner.run.timings import Timings
from planner.run.traffic import MOST_SHAPES, Mix, Rate
from planner.sim.rng import Rng
from tests.planner_control.lab import DENOISE, FOUR, ONE, seconds


def completion(took_s: float, count: int = 1, *, first: bool = False, shape: Shape = FOUR) -> Completion:
    return Completion(DENOISE, "H100", shape, math.log(took_s), count, first)


@pytest.mark.parametrize("factor", [3.0, 1 / 3])
def test_a_profile_wrong_by_three_is_corrected(factor: float) -> None:
    times = Timings(lambda role, name, shape: seconds(role, name, shape) * factor)
    for _ in range(3):
        times.add(completion(63.0))
    assert times.seconds(DENOISE, "H100", FOUR) == pytest.approx(63.0)
    assert times.seconds(DENOISE, "H100", ONE) == pytest.approx(15.75)  # carried to a shape that was not seen


def test_a_lasting_change_is_learnt_at_once_and_an_odd_sample_is_not() -> None:
    times = Timings(seconds)
    times.add(completion(63.0, 50))
    times.add(completion(190.0))
    assert times.seconds(DENOISE, "H100", FOUR) == pytest.approx(63.0, rel=0.15)
    times.add(completion(190.0, 2))
    assert times.seconds(DENOISE, "H100", FOUR) == pytest.approx(190.0)


def test_a_workers_first_task_does_not_count() -> None:
    times = Timings(seconds)
    times.add(completion(200.0, first=True))
    assert times.seconds(DENOISE, "H100", FOUR) == pytest.approx(63.0)


def test_without_a_profile_what_is_measured_counts() -> None:
    times = Timings(lambda role, name, shape: None)
    assert times.seconds(DENOISE, "H100", FOUR) is None
    times.add(completion(50.0, first=True))
    assert times.seconds(DENOISE, "H100", FOUR) == pytest.approx(50.0)
    assert times.seconds(DENOISE, "H100", ONE) == pytest.approx(50.0)


def test_timings_survive_a_restart() -> None:
    times, later = Timings(seconds), Timings(seconds)
    times.add(completion(126.0, 5))
    later.load(times.dump())
    assert later.seconds(DENOISE, "H100", FOUR) == pytest.approx(126.0)
    assert later.seconds(DENOISE, "H100", ONE) == pytest.approx(31.5)


def test_a_rate_is_right_soon_and_follows() -> None:
    rate, rng, now = Rate(), Rng(1), 0.0
    while now < 600:
        now += rng.exponential(10.0)
        rate.add(now)
    assert rate.per_s(now) == pytest.approx(0.1, rel=0.35)
    assert rate.per_s(now + 1800) < 0.02
    assert 0.5 < rate.cv2() < 2.0


def test_a_mix_forgets_what_came_before_a_change() -> None:
    mix = Mix()
    for shape, count in ((FOUR, 100), (ONE, 4)):
        for _ in range(count):
            mix.add(shape)
    assert mix.shares()[FOUR] > 0.9
    mix.restart(4)
    assert mix.shares() == {ONE: 1.0}


def test_a_mix_is_bounded() -> None:
    mix = Mix()
    for width in range(1, 500):
        mix.add(Shape(width, 8))
    assert len(mix.weights) <= MOST_SHAPES


def test_an_observer_is_bounded_and_says_what_it_dropped() -> None:
    observer = Observer()
    for index in range(MOST_EVENTS + 10):
        observer.arrived("wan", FOUR, float(index))
        observer.completed(DENOISE, "H100", FOUR, 63.0)
    seen = observer.take(())
    assert (len(seen.arrivals), seen.dropped) == (MOST_EVENTS, 10)
    (done,) = seen.completions
    assert done.count == MOST_EVENTS + 10
    assert done.log_s == pytest.approx(math.log(63.0))
    assert observer.take(()).completions == ()


def daily(days: int) -> list[float]:
    rng = Rng(5)
    return [max(0.0, 50 + 45 * math.sin(2 * math.pi * hour / 24) + 4 * rng.normal()) for hour in range(24 * days)]


def fed(counts: list[float], ahead: int = 1) -> Trend:
    trend = Trend(ahead, (24,))
    for count in counts:
        trend.add(count)
    return trend


def test_a_season_is_forecast_when_that_beats_the_present() -> None:
    counts = daily(7)
    trend = fed(counts, 3)
    assert trend.best == "holt-winters 24"
    truth = 50 + 45 * math.sin(2 * math.pi * (len(counts) + 2) / 24)
    assert (trend.per_s() or 0) * BIN_S == pytest.approx(truth, abs=15)


def test_a_random_walk_is_left_to_the_naive_one() -> None:
    rng, level, counts = Rng(2), 100.0, []
    for _ in range(200):
        level = max(level + 10 * rng.normal(), 1.0)
        counts.append(level)
    assert fed(counts).best == "naive"
    assert fed(counts).per_s() is None


def test_noise_around_a_level_is_smoothed() -> None:
    rng = Rng(2)
    assert fed([max(0.0, 20 + 8 * rng.normal()) for _ in range(200)]).best == "ewma"


def test_little_history_is_not_forecast() -> None:
    assert fed([1.0, 2.0, 3.0]).per_s() is None
    assert naive([1.0, 5.0], 3) == 5.0
    assert ewma([4.0] * 5, 2) == 4.0
    assert holt_winters([4.0] * 5, 2, 24) == 4.0


def test_arrivals_fill_bins() -> None:
    trend = Trend(1, (24,))
    for tick in range(40 * 6):
        trend.at(tick * BIN_S / 6, 2 + tick % 2)
    assert len(trend._counts) == 39
    assert set(trend._counts) == {15.0}
