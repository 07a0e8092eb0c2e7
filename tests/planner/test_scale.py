"""However many requests wait, a message costs the same: counted in lines of ours executed, not in time."""

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest

from tests.planner.lab import DECODE, DENOISE, ENCODE, Lab


def lines_of(call: Callable[[], None]) -> int:
    """Lines of planner.run that run. Every turn of every loop counts."""
    count = 0

    def trace(frame: FrameType, event: str, _arg: Any) -> Any:
        nonlocal count
        if "/planner/run/" not in frame.f_code.co_filename:
            return None
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(before)
    return count


def queued(waiting: int) -> Lab:
    lab = Lab()
    for name, role in (("e", ENCODE), ("n", DENOISE), ("c", DECODE)):
        lab.ledger.worker_ready(name, role, 2, 0.0)
    for n in range(waiting):
        lab.ledger.submit(lab.request(f"r{n}"))
    lab.ledger.effects(0.0)
    return lab


def one_of_each(lab: Lab) -> None:
    """A request's way through all stages, and the messages around it."""
    book = lab.ledger
    for name in ("e", "n", "c"):
        request = book.requests["r0"]
        assert request.lease is not None
        ref = request.lease.ref
        book.started(name, ref, 0.1)
        book.seen(name, 0.1)
        book.done(name, ref, "out", 0.1)
        book.effects(0.1)
    book.published("r0")
    book.effects(0.2)


def disturb(lab: Lab) -> None:
    book = lab.ledger
    book.tick(0.25)
    book.cancel("r5")
    book.resync("e", [], [], 0.3)
    book.effects(0.3)
    book.worker_lost("e", "gone")
    book.worker_ready("e2", ENCODE, 2, 0.3)
    book.effects(0.3)


@pytest.mark.parametrize("what", [one_of_each, disturb])
def test_a_message_costs_the_same_with_ten_thousand_waiting(what: Callable[[Lab], None]) -> None:
    few, many = queued(100), queued(10_000)
    assert many.ledger.queued(ENCODE) > 9_900
    cheap, dear = lines_of(lambda: what(few)), lines_of(lambda: what(many))
    assert 0 < dear <= cheap * 1.05 + 10, f"{cheap} lines with 100 waiting, {dear} with 10,000"


def test_blocked_requests_do_not_pile_up_in_the_line() -> None:
    lab = queued(1_000)
    line = lab.ledger._waiting[ENCODE]
    for turn in range(500):
        lab.ledger.tick(0.25 * turn)
        for worker in ("e", "n", "c"):
            lab.ledger.seen(worker, 0.25 * turn)
        lab.ledger.effects(0.25 * turn)
    assert len(line._heap) <= 1_000


def test_ten_thousand_requests_all_finish() -> None:
    lab = queued(10_000)
    book, finished = lab.ledger, 0
    while book.requests:
        for worker in list(book.workers.values()):
            for request_id in list(worker.leases):
                lease = book.requests[request_id].lease
                assert lease is not None
                book.started(worker.id, lease.ref, 0.0)
                book.done(worker.id, lease.ref, "out", 1.0)
                if book.requests[request_id].publishing is not None:
                    book.published(request_id)
                    finished += 1
        book.effects(0.0)
        held = sum(len(worker.outputs) for worker in book.workers.values())
        assert held <= 40, "back-pressure bounds what is held, whatever waits"
    assert finished == 10_000
