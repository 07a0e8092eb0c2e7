"""How far ahead a worker is given tasks: far enough that a late transfer does not stop it, and no further."""

import random

from planner.domain import Role
from planner.run.dispatch import MAX_AHEAD, MAX_SLOTS, Worker


def worker(prefetch: int = 2) -> Worker:
    return Worker("w", Role("m", "decode"), prefetch, 0.0)


def after(made: Worker, seconds: float, *fetches: float) -> int:
    for fetch_s in fetches * 40:
        made.observe(seconds, fetch_s)
    return made.slots


def test_small_inputs_and_long_tasks_need_the_least() -> None:
    assert after(worker(), 1.0, 0.0) == 3
    assert after(worker(), 1.0, 0.01) == 3


def test_transfers_longer_than_the_computing() -> None:
    assert 1 + 4 <= after(worker(), 0.1, 0.3) <= 1 + 5


def test_late_ones_now_and_then() -> None:
    draw = random.Random(1)
    delays = [0.01 + (0.25 if draw.random() < 0.15 else 0.0) for _ in range(200)]
    assert after(worker(), 0.05, *delays) > 1 + 5


def test_it_is_bounded_and_shrinks_again() -> None:
    made = worker()
    assert after(made, 0.001, 5.0) == 1 + max(MAX_AHEAD, 20)
    assert after(made, 0.05, 60.0) == 1 + MAX_AHEAD
    assert after(made, 1.0, *[0.0] * 5) == 3
    assert after(made, 0.0, 0.0) == MAX_SLOTS


def test_a_synchronous_worker_has_one_task_whatever_it_takes() -> None:
    assert after(worker(0), 0.001, 5.0) == 1
