"""Which worker processes an agent starts and ends, and when."""

import pytest

from stages.protocol import WorkerWish
from stages.settings import rank_environment, worker_environment
from stages.slots import LONGEST_PAUSE_S, SETTLED_S, Kill, SlotBook, Start

SLOT = "m.encode.0"


def book(*wishes: WorkerWish) -> SlotBook:
    it = SlotBook("n1")
    it.wish(wishes or [WorkerWish(SLOT)])
    return it


def started(it: SlotBook, now: float) -> list[str]:
    return [action.worker for action in it.actions(now) if isinstance(action, Start)]


def test_each_slot_is_filled_once() -> None:
    it = book(WorkerWish(SLOT, 3), WorkerWish("m.decode.0"))
    assert it.actions(0.0) == [Start(SLOT, f"n1.{SLOT}.1", (3,)), Start("m.decode.0", "n1.m.decode.0.1", ())]
    assert it.actions(0.1) == []
    it.wish([WorkerWish(SLOT, 3), WorkerWish("m.decode.0")])  # told again
    assert it.actions(0.2) == []


def test_one_that_dies_young_is_started_again_after_pauses_that_double_up_to_a_bound() -> None:
    it, now, pauses = book(), 0.0, []
    for _ in range(12):
        (worker,) = started(it, now)
        it.died(worker, now)
        pauses.append(round(it.slots[SLOT].not_before_s - now, 3))
        assert started(it, it.slots[SLOT].not_before_s - 0.01) == []
        now = it.slots[SLOT].not_before_s
    assert pauses[:5] == [0.2, 0.4, 0.8, 1.6, 3.2]
    assert max(pauses) == LONGEST_PAUSE_S


def test_one_that_had_settled_is_forgiven() -> None:
    it, now = book(), 0.0
    for _ in range(8):
        (worker,) = started(it, now)
        it.died(worker, now + 1.0)
        now += 1.0 + LONGEST_PAUSE_S
    (worker,) = started(it, now)
    it.died(worker, now + SETTLED_S + 1.0)
    assert started(it, now + SETTLED_S + 1.1) == []
    assert started(it, now + SETTLED_S + 1.3)


def test_a_slot_no_longer_wished_for_is_killed_until_it_is_dead() -> None:
    it = book()
    (worker,) = started(it, 0.0)
    it.wish([])
    assert it.actions(1.0) == it.actions(2.0) == [Kill(SLOT, worker)]
    it.died(worker, 3.0)
    assert it.actions(3.0) == []


def test_a_slot_wished_for_again_waits_for_the_old_process_and_never_uses_its_name() -> None:
    it = book()
    (first,) = started(it, 0.0)
    it.wish([])
    it.wish([WorkerWish(SLOT)])
    assert it.actions(1.0) == [Kill(SLOT, first)]
    it.died(first, 2.0)
    (second,) = started(it, 2.0)
    assert second != first


def test_a_higher_generation_replaces_the_process_once() -> None:
    it = book()
    (first,) = started(it, 0.0)
    it.wish([WorkerWish(SLOT, generation=1)])
    assert it.actions(1.0) == [Kill(SLOT, first)]
    it.died(first, 1.5)
    (second,) = started(it, 1.5)
    it.wish([WorkerWish(SLOT, generation=1)])
    assert it.actions(2.0) == []
    assert second == f"n1.{SLOT}.2"


def test_a_new_head_counts_generations_anew() -> None:
    it = book(WorkerWish(SLOT, generation=7))
    (first,) = started(it, 0.0)
    it.wish([WorkerWish(SLOT, generation=0)])
    assert it.actions(1.0) == []  # that it counts from zero is no reason to replace anybody
    it.wish([WorkerWish(SLOT, generation=1)])
    assert it.actions(2.0) == [Kill(SLOT, first)]


def test_an_unknown_death_changes_nothing() -> None:
    it = book()
    it.died("n1.other.0.1", 0.0)
    assert len(started(it, 0.0)) == 1


def test_whoever_has_several_gpus_begins_when_all_of_them_are_free() -> None:
    one, beside, both = WorkerWish("gpu4", 4), WorkerWish("gpu4-1", 4), WorkerWish("gpu4_5", 4, beside=(5,))
    it = book(one, beside)
    first, second = started(it, 0.0)
    it.wish([both])
    assert it.actions(1.0) == [Kill("gpu4", first), Kill("gpu4-1", second)]
    it.died(first, 1.0)
    assert it.actions(2.0) == [Kill("gpu4-1", second)]
    it.died(second, 2.0)
    assert it.actions(3.0) == [Start("gpu4_5", "n1.gpu4_5.1", (4, 5))]
    it.wish([beside, WorkerWish("gpu6", 6)])
    assert started(it, 4.0) == ["n1.gpu6.1"]
    it.died("n1.gpu4_5.1", 5.0)
    assert started(it, 5.0) == ["n1.gpu4-1.2"]


def test_a_worker_and_its_ranks_see_its_gpus_and_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = [worker_environment(gpus)["CUDA_VISIBLE_DEVICES"] for gpus in ((4, 5, 6, 7), (2,), ())]
    assert shown == ["4,5,6,7", "2", ""]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6,7")
    environments = [rank_environment(rank) for rank in (1, 3, None)]
    assert [env and env["CUDA_VISIBLE_DEVICES"] for env in environments] == ["5", "7", "4,5,6,7"]
    assert rank_environment(4) is None
