"""CUSUM: quick on changes, quiet otherwise, and right about when a change began."""

import math

from planner.run.change import WARM, Cusum
from planner.sim.rng import Rng


def feed(watch: Cusum, values: list[float]) -> list[int]:
    return [found for value in values if (found := watch.add(value))]


def test_four_to_one_steps_is_seen_in_four_requests() -> None:
    watch = Cusum()
    assert not feed(watch, [math.log(63.0)] * 60)
    alarms = [index for index in range(10) if watch.add(math.log(15.75))]
    assert alarms[0] + 1 == 4


def test_it_says_when_the_change_began() -> None:
    watch = Cusum()
    feed(watch, [math.log(63.0)] * 60)
    assert feed(watch, [math.log(15.75)] * 4) == [4]


def test_a_rise_is_seen_like_a_fall() -> None:
    watch = Cusum()
    feed(watch, [0.0] * 60)
    assert feed(watch, [1.4] * 6)


def test_one_odd_request_is_no_change() -> None:
    watch = Cusum()
    assert not feed(watch, [0.0] * 60 + [5.0] + [0.0] * 60)


def test_after_an_alarm_the_baseline_is_learnt_anew() -> None:
    watch = Cusum()
    feed(watch, [0.0] * 60 + [2.0] * 4)
    assert not feed(watch, [2.0] * 200)


def test_false_alarms_are_rare() -> None:
    alarms = 0
    for seed in range(20):
        rng, watch = Rng(seed, "quiet"), Cusum()
        alarms += len(feed(watch, [math.log(rng.lognormal(60.0, 0.3)) for _ in range(1000)]))
    assert alarms <= 20  # one in a thousand


def test_a_mix_that_does_not_change_is_quiet() -> None:
    rng, watch = Rng(3, "mix"), Cusum()
    assert len(feed(watch, [1.4 if rng.uniform() < 0.5 else 0.0 for _ in range(3000)])) <= 3


def test_nothing_is_said_before_there_is_a_baseline() -> None:
    assert not feed(Cusum(), [0.0, 9.0] * (WARM // 2))
