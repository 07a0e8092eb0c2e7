"""What the policy does, tick by tick."""

import itertools

import pytest

from planner.run.config import RoleBounds
from planner.run.decisions import SetCounts
from planner.run.observe import Lapse
from planner.run.policy import Policy
from tests.planner_control.lab import DECODE, DENOISE, ENCODE, FOUR, LOAD_S, ONE, ROLES, Lab, expected, seconds


def settled() -> Lab:
    """Has seen a quiet quarter of an hour of four-step requests at full load."""
    lab = Lab(workload=expected(FOUR, 4.7))
    for _ in range(15):
        lab.requests(FOUR, 5)
        for _ in range(12):
            lab.tick()
    return lab


def test_the_first_tick_lays_out_what_is_expected() -> None:
    lab = Lab(counts=(2, 3, 3), workload=expected(FOUR, 5))
    (decision,) = lab.tick()
    assert isinstance(decision, SetCounts)
    assert (decision.why.code, lab.ratio) == ("start", (1, 5, 2))


def test_without_anything_to_go_by_nothing_is_touched() -> None:
    assert Lab(counts=(2, 3, 3)).until(5) == []


def test_a_change_of_the_work_is_answered_with_the_predictors_counts() -> None:
    lab = settled()
    lab.requests(ONE, 6, 24.0)
    lab.queued[DECODE] = 20
    (decision,) = lab.until(2)
    assert decision.why.code == "change"
    assert lab.ratio == (1, 4, 3)
    assert decision.why.numbers["cover_after"] > decision.why.numbers["cover_before"]


def test_one_move_a_cooldown_that_comes_from_measured_delays() -> None:
    lab = settled()
    for _ in range(4):
        lab.observer.lapse(Lapse("load", 40.0, DECODE))
        lab.observer.lapse(Lapse("drain", 30.0, DENOISE))
    lab.tick()
    lab.requests(ONE, 6, 24.0)
    lab.queued[DECODE] = 20
    assert len(lab.until(2)) == 1
    moved_s = 30.0 + 40.0
    assert lab.policy.view(lab.now).cooldown_s == pytest.approx(moved_s / (8 * 0.1), abs=2 * lab.config.interval_s)
    lab.requests(FOUR, 60)
    assert lab.until(10) == []


def test_nothing_moves_while_something_moves() -> None:
    lab = settled()
    lab.coming[DECODE] = 1
    lab.requests(ONE, 6, 24.0)
    lab.queued[DECODE] = 20
    assert lab.until(4) == []
    lab.coming[DECODE] = 0
    assert [d.why.code for d in lab.until(1)] == ["change"]


def test_reversals_wait_longer_each_time() -> None:
    lab = settled()
    waits = []
    for round_ in range(4):
        shape = ONE if round_ % 2 == 0 else FOUR
        began = lab.now
        lab.queued = {ENCODE: 0, DENOISE: 30, DECODE: 30}
        while lab.now - began < 4000:
            lab.requests(shape, 1, 4.0)
            if any(isinstance(d, SetCounts) for d in lab.tick()):
                break
        waits.append(lab.policy.view(lab.now).cooldown_s)
    assert waits[-1] > 2 * waits[0]


def test_comfort_is_left_alone() -> None:
    lab = Lab(counts=(2, 4, 2), workload=expected(FOUR, 1))
    lab.policy.decide(lab.observer.take(()), 0.0)
    lab.tick()
    before = lab.ratio
    lab.busy = dict.fromkeys(ROLES, 0.2)
    for _ in range(20):
        lab.requests(FOUR, 1)
        lab.until(12)
    assert lab.ratio == before


def test_a_pin_is_obeyed_and_the_rest_shared_out() -> None:
    lab = settled()
    lab.pinned = {DECODE: 4}
    (decision,) = lab.until(1)
    assert (decision.why.code, lab.ratio) == ("room", (1, 3, 4))


def test_lost_room_is_shared_out_anew() -> None:
    lab = settled()
    lab.workers = 4
    (decision,) = lab.until(1)
    assert (decision.why.code, sum(decision.counts.values())) == ("room", 4)


def test_static_does_nothing() -> None:
    lab = Lab(mode="static", workload=expected(FOUR, 5))
    lab.requests(ONE, 100)
    assert lab.until(20) == []


def test_a_busy_stage_with_a_long_queue_grows_into_free_room() -> None:
    bounds = (RoleBounds(ENCODE, 1, 1), RoleBounds(DENOISE, 1, 16), RoleBounds(DECODE, 1, 4))
    lab = Lab(workers=None, counts=(1, 2, 1), roles=bounds, slo_p95_s={"wan": 300.0})
    lab.requests(FOUR, 2)
    lab.tick()
    lab.busy = {ENCODE: 0.1, DENOISE: 1.0, DECODE: 0.5}
    before, lab.queued[DENOISE] = lab.counts[DENOISE], 12
    assert lab.until(60)
    assert lab.counts[DENOISE] > before
    assert lab.counts[ENCODE] == 1


def test_a_stage_gives_up_a_worker_only_after_its_patience() -> None:
    lab = Lab(workers=None, counts=(1, 6, 3), slo_p95_s={"wan": 300.0}, patience_s=300.0)
    lab.requests(FOUR, 2, 5.0)
    lab.busy = dict.fromkeys(ROLES, 0.3)
    down: list[float] = []
    for _ in range(200):
        if lab.now % 60 < 5:
            lab.requests(FOUR, 2)
        before = sum(lab.counts.values())
        lab.tick()
        if sum(lab.counts.values()) < before:
            down.append(lab.now)
    assert down
    assert down[0] >= 300.0
    assert all(later - earlier >= lab.config.interval_s for earlier, later in itertools.pairwise(down))
    assert lab.counts[DENOISE] >= 3  # two a minute of 63 s keep 2.1 busy


def test_the_published_rule_scales_the_longest_queue_and_never_the_encoder() -> None:
    lab = Lab(workers=10, counts=(1, 5, 2), mode="reactive")
    lab.queued = {ENCODE: 100, DENOISE: 3, DECODE: 9}
    (first,) = lab.until(2)
    assert lab.ratio == (1, 5, 3)
    assert first.why.code == "pressure"
    lab.until(1)
    assert lab.ratio == (1, 6, 3)
    lab.until(40)
    assert lab.counts[ENCODE] == 1


def test_what_was_learnt_outlives_the_head() -> None:
    lab = settled()
    lab.requests(ONE, 40, 60.0)
    lab.queued[DECODE] = 20
    lab.until(3)
    assert lab.ratio == (1, 4, 3)
    lab.policy = Policy(lab.config, seconds, lab.policy.memory())
    assert lab.until(3) == []
    assert lab.policy.work.shares("wan")[ONE] > 0.9
    assert Policy(lab.config, seconds, b"nonsense").delays.load_s(DENOISE) == LOAD_S[DENOISE]
