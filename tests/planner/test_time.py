"""What only time brings about: expiry, the head's own sleep, stalls, work that moves to idle workers."""

from planner.run import effects as fx
from planner.run.book import Limits
from tests.planner.lab import DENOISE, ENCODE, Lab


def test_the_head_having_slept_is_nobodys_fault() -> None:
    lab = Lab()
    lab.worker("e", ENCODE)
    lab.submit("a")
    lab.now += 3600.0
    lab.ledger.tick(lab.now)
    lab.act()
    assert lab.holder("a") == "e"
    lab.pass_time(4.5)
    assert lab.holder("a") == "e"
    lab.pass_time(1.5)
    assert lab.ledger.workers == {}


def test_only_the_times_given_count() -> None:
    """A clock that starts anywhere: what matters is how far apart the readings are."""
    for begin in (0.0, 1e9):
        lab = Lab()
        lab.now = begin
        lab.ledger.tick(begin)
        lab.worker("e", ENCODE)
        lab.submit("a")
        lab.pass_time(5.0)
        assert lab.holder("a") == "e"
        lab.pass_time(0.5)
        assert lab.holder("a") is None


def test_a_task_behind_another_moves_to_an_idle_worker() -> None:
    lab = Lab(Limits(steal_after_s=0.5))
    lab.worker("e1", ENCODE, prefetch=2)
    lab.submit("a", "b", "c")
    lab.start("a")
    refs = {name: lab.ref(name) for name in "abc"}
    lab.worker("e2", ENCODE, prefetch=2)
    lab.pass_time(1.0, alive=["e1", "e2"])
    assert lab.holder("a") == "e1"
    assert {lab.holder("b"), lab.holder("c")} == {"e1", "e2"}  # e2 is not idle any more after the first
    (cancel,) = lab.take(fx.CancelTask)
    assert cancel.worker == "e1"
    assert cancel.ref in (refs["b"], refs["c"])
    assert lab.ledger.requests["b"].losses == 0


def test_nothing_is_stolen_while_others_wait_or_for_a_blamed_worker() -> None:
    lab = Lab()
    lab.worker("bad", ENCODE)
    lab.submit("b")
    lab.fail("b")
    lab.ledger.worker_draining("bad")
    lab.ledger.returned("bad", lab.ref("b"))
    lab.act()
    lab.worker("e", ENCODE, prefetch=1)
    lab.submit("a")
    lab.start("b")
    assert (lab.holder("a"), lab.holder("b")) == ("e", "e")
    lab.ledger.requests["a"].blamed.add("bad")
    lab.worker("bad", ENCODE)
    for _ in range(8):
        lab.pass_time(0.5, alive=["e", "bad"])
    assert lab.holder("a") == "e"
    assert lab.take(fx.CancelTask) == []


def test_a_task_whose_input_is_gone_is_not_stolen() -> None:
    lab = Lab(stages=("encode", "denoise"))
    lab.worker("e", ENCODE)
    lab.worker("n1", DENOISE, prefetch=1)
    for name in ("a", "b"):
        lab.submit(name)
        lab.done(name)
    lab.start("a")
    lab.lose("e")  # n1 has b's input already
    lab.worker("n2", DENOISE)
    lab.pass_time(2.0, alive=["n1", "n2"])
    assert lab.holder("b") == "n1"


def test_a_stalled_worker_is_condemned_and_the_try_charged() -> None:
    lab = Lab(Limits(stall_s=10.0))
    lab.worker("e", ENCODE)
    lab.submit("a")
    ref = lab.start("a")
    lab.pass_time(9.0, alive=["e"])
    lab.ledger.stepped("e", ref, 1, 4, lab.now)
    lab.pass_time(9.0, alive=["e"])
    assert lab.take(fx.Condemn) == []
    lab.pass_time(2.0, alive=["e"])
    (condemn,) = lab.take(fx.Condemn)
    assert condemn.worker == "e"
    assert lab.ledger.workers == {}
    assert [attempt.code for attempt in lab.ledger.requests["a"].evidence] == ["worker_lost"]


def test_a_worker_that_never_starts_what_it_has_is_condemned_for_free() -> None:
    lab = Lab(Limits(stall_s=10.0))
    lab.worker("e", ENCODE)
    lab.submit("a")
    lab.pass_time(11.0, alive=["e"])
    assert [condemn.worker for condemn in lab.take(fx.Condemn)] == ["e"]
    assert lab.ledger.requests["a"].evidence == []


def test_a_task_behind_a_long_one_does_not_condemn() -> None:
    lab = Lab(Limits(stall_s=10.0))
    lab.worker("e", ENCODE, prefetch=1)
    lab.submit("a", "b")
    ref = lab.start("a")
    for step in range(6):
        lab.pass_time(5.0, alive=["e"])
        lab.ledger.stepped("e", ref, step, 6, lab.now)
    assert lab.take(fx.Condemn) == []
