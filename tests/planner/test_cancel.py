"""Ending a request at its user's wish, wherever it is."""

import pytest

from planner.domain import TaskRef
from planner.run import effects as fx
from planner.run.book import EPOCHS_PER_HEAD
from tests.planner.lab import DECODE, DENOISE, STAGES, Lab


@pytest.mark.parametrize("done", range(3))
@pytest.mark.parametrize("state", ["waiting", "with a worker", "started"])
def test_cancel_wherever_it_is(done: int, state: str) -> None:
    lab = Lab()
    lab.trio()
    lab.submit("a")
    for _ in range(done):
        lab.done("a")
    if state == "waiting":
        lab.ledger.returned({0: "e", 1: "n", 2: "c"}[done], lab.ref("a"))
        lab.act()
    elif state == "started":
        lab.start("a")
    lease = lab.ledger.requests["a"].lease
    lab.out.clear()
    assert lab.ledger.cancel("a")
    lab.act()
    (finish,) = lab.take(fx.Finish)
    assert (finish.outcome, finish.code) == ("cancelled", "cancelled")
    assert lab.take(fx.CancelTask) == ([fx.CancelTask(lease.worker, lease.ref)] if lease else [])
    assert all(not worker.leases and not worker.outputs for worker in lab.ledger.workers.values())
    assert not lab.ledger.cancel("a")
    for role, name in zip(STAGES, "enc", strict=True):
        lab.ledger.done(name, TaskRef("a", role, 99), "late", 0.1)
    lab.act()
    assert lab.ledger.requests == {}


def test_cancel_comes_too_late_for_what_is_being_published() -> None:
    lab = Lab()
    lab.trio()
    lab.submit("a")
    for _ in range(3):
        lab.done("a")
    assert not lab.ledger.cancel("a")
    assert lab.take(fx.Finish) == []


def test_cancel_during_the_hold_and_a_claim_after_it() -> None:
    lab = Lab(incarnation=2)
    lab.ledger.recover([lab.request("a")], lab.now, 5.0)
    ref = TaskRef("a", "denoise", EPOCHS_PER_HEAD + 7)
    lab.worker("n", DENOISE)
    assert lab.ledger.cancel("a")
    lab.resync("n", [(ref, True)])
    assert lab.take(fx.CancelTask) == [fx.CancelTask("n", ref)]
    lab.ledger.release_hold()
    lab.worker("c", DECODE)
    assert lab.ledger.requests == {}
