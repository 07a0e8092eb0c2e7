"""Queues that are played through, because some classes may use only some of their replicas."""

import math

import pytest

from planner.facts import overlap


def test_one_server_waits_as_the_exact_formula_says():
    """M/D/1: mean wait ρ·s/(2(1 − ρ)) over all requests, of which a share ρ waits."""
    found = overlap.play([1], {0: 0.07}, [{0: 10.0}], 1.0, 0.7)[0]
    assert found.waits == pytest.approx(0.7, rel=0.03)
    assert found.waits * found.wait_s == pytest.approx(0.7 * 10 / 2 / 0.3, rel=0.06)


def test_a_class_with_more_choice_waits_less_and_the_answer_is_always_the_same():
    seconds = [{0: 4.0, 1: 18.0}, {0: 20.0}]
    played = [overlap.play([2, 6], {0: 0.3, 1: 0.075}, seconds, 1.0, 0.8) for _ in range(2)]
    assert played[0] == played[1]
    both, one = played[0][0], played[0][1]
    assert both.waits < one.waits
    assert one.services == ((1.0, 18.0),)
    assert [seconds for _, seconds in both.services] == [4.0, 20.0]


def test_types_that_get_more_than_they_can_do_wait_for_ever():
    found = overlap.play([1, 9], {0: 0.1, 1: 0.2}, [{0: 20.0}, {1: 5.0}], 1.0, 0.9)
    assert math.isinf(found[0].wait_s)
    assert math.isfinite(found[1].wait_s)
