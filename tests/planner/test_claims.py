"""What workers say they have: after lost messages, after a restart of the head, and when they say it twice."""

import pytest

from planner.domain import TaskRef
from planner.run import effects as fx
from planner.run.book import EPOCHS_PER_HEAD
from tests.planner.lab import DENOISE, ENCODE, Lab


def restarted(*names: str, grace_s: float = 5.0) -> Lab:
    """A new head that has taken up these requests."""
    lab = Lab(incarnation=2)
    lab.ledger.recover([lab.request(name) for name in names], lab.now, grace_s)
    lab.act()
    return lab


def old(request: str, stage: str, number: int = 7) -> TaskRef:
    return TaskRef(request, stage, EPOCHS_PER_HEAD + number)


# --- lost messages ---


def test_a_task_that_never_arrived_is_given_again() -> None:
    lab = Lab()
    lab.worker("e", ENCODE)
    lab.submit("a")
    first = lab.ref("a")
    lab.now += 2.0
    lab.resync("e")
    assert lab.take(fx.CancelTask) == [fx.CancelTask("e", first)]  # should it be on its way after all
    assert lab.ref("a").epoch > first.epoch
    assert lab.ledger.requests["a"].losses == 1


def test_a_hello_that_crossed_a_task_on_its_way_costs_nothing() -> None:
    lab = Lab()
    lab.worker("e", ENCODE)
    lab.submit("a")
    for _ in range(50):
        lab.now += 0.01
        lab.resync("e")
    assert lab.ledger.requests["a"].losses == 0
    assert lab.holder("a") == "e"


def test_what_a_worker_was_told_to_forget_is_not_believed_any_more() -> None:
    lab = Lab()
    lab.worker("e", ENCODE)
    lab.submit("a")
    first = lab.ref("a")
    lab.ledger.worker_draining("e")
    lab.resync("e")  # said before the task arrived: it is cancelled
    assert lab.holder("a") is None
    lab.resync("e", [(first, False)])  # said before the cancellation arrived
    assert lab.holder("a") is None
    assert lab.take(fx.CancelTask)[-1] == fx.CancelTask("e", first)


def test_a_lost_done_is_made_good_by_the_output_itself() -> None:
    lab = Lab()
    lab.trio()
    lab.submit("a")
    ref = lab.start("a")
    lab.resync("e", outputs=[(ref, "E")])
    assert lab.ref("a").stage == "denoise"
    assert lab.take(fx.Assign)[-1].input == "E"


def test_a_lost_done_of_the_last_stage_is_published() -> None:
    lab = Lab()
    lab.trio()
    lab.submit("a")
    lab.done("a")
    lab.done("a")
    ref = lab.start("a")
    lab.resync("c", outputs=[(ref, "C")])
    assert [(publish.ref, publish.artifact) for publish in lab.take(fx.Publish)] == [(ref, "C")]


def test_an_output_that_is_gone_is_noticed() -> None:
    lab = Lab()
    lab.worker("e", ENCODE)
    lab.submit("a")
    lab.done("a")
    lab.resync("e")
    assert lab.ref("a").stage == "encode"
    assert lab.ledger.workers["e"].outputs == {}


def test_what_nobody_wants_is_dropped() -> None:
    lab = Lab()
    lab.worker("e", ENCODE)
    task, output = old("gone", "encode", 1), old("gone", "encode", 2)
    lab.resync("e", [(task, True)], [(output, "E")])
    assert lab.take(fx.CancelTask) == [fx.CancelTask("e", task)]
    assert lab.take(fx.Release) == [fx.Release("e", output.key)]


def test_a_worker_that_comes_back_takes_up_what_still_waits() -> None:
    lab = Lab()
    lab.worker("e", ENCODE)
    lab.submit("a")
    ref = lab.start("a")
    lab.pass_time(6.0)
    assert len(lab.ledger.requests["a"].evidence) == 1
    lab.ledger.worker_ready("e", ENCODE, 0, lab.now)
    lab.resync("e", [(ref, True)])
    assert lab.ref("a") == ref
    lab.ledger.worker_lost("e", "killed", charge=[ref])
    lab.act()
    assert len(lab.ledger.requests["a"].evidence) == 1  # the same try is charged once


def test_a_worker_that_comes_back_is_told_to_forget_what_another_has() -> None:
    lab = Lab()
    lab.worker("e", ENCODE)
    lab.submit("a")
    ref = lab.start("a")
    lab.pass_time(6.0)
    lab.worker("e2", ENCODE)
    lab.ledger.worker_ready("e", ENCODE, 0, lab.now)
    lab.resync("e", [(ref, True)])
    assert lab.holder("a") == "e2"
    assert lab.take(fx.CancelTask) == [fx.CancelTask("e", ref)]


def test_an_output_that_turns_up_saves_the_worker_that_computes_it_again() -> None:
    lab = Lab()
    lab.worker("e", ENCODE)
    lab.submit("a")
    ref = lab.done("a", "E")
    lab.pass_time(6.0)
    lab.worker("e2", ENCODE)
    again = lab.ref("a")
    lab.ledger.worker_ready("e", ENCODE, 0, lab.now)
    lab.resync("e", outputs=[(ref, "E")])
    assert fx.CancelTask("e2", again) in lab.take(fx.CancelTask)
    assert lab.ledger.queued(DENOISE) == 1


def test_said_twice_is_heard_once() -> None:
    lab = Lab()
    lab.trio()
    lab.submit("a")
    ref = lab.done("a", "E")
    assert lab.ledger.done("e", ref, "E", 0.1) is True
    lab.ledger.started("e", ref, lab.now)
    lab.ledger.stepped("e", ref, 1, 4, lab.now)
    lab.ledger.failed("e", ref, "late", "late", retry=True)
    lab.ledger.returned("e", ref)
    lab.ledger.input_lost("e", ref, "key", "late")
    lab.act()
    assert lab.take(fx.Release) == []  # denoise needs it
    assert lab.ref("a").stage == "denoise"
    assert lab.ledger.fenced == 1
    assert not lab.ledger.workers["e"].draining


def test_another_workers_word_does_not_count() -> None:
    lab = Lab()
    lab.worker("e1", ENCODE)
    lab.submit("a")
    lab.worker("e2", ENCODE)
    assert lab.ledger.done("e2", lab.ref("a"), "forged", 0.1) is False
    lab.ledger.failed("e2", lab.ref("a"), "x", "x", retry=False)
    lab.act()
    assert lab.holder("a") == "e1"


# --- a new head ---


def test_nothing_is_dispatched_before_everybody_had_time_to_report() -> None:
    lab = restarted("a")
    lab.worker("e", ENCODE)
    lab.pass_time(4.75, alive=["e"])
    assert lab.ledger.holding
    assert lab.holder("a") is None
    lab.pass_time(0.5, alive=["e"])
    assert lab.holder("a") == "e"
    assert lab.ref("a").epoch > 2 * EPOCHS_PER_HEAD


@pytest.mark.parametrize("first", ["task", "output"])
def test_running_tasks_and_held_outputs_are_adopted_in_any_order(first: str) -> None:
    lab = restarted("a")
    lab.trio()
    claims = [
        lambda: lab.resync("n", [(old("a", "denoise", 8), True)]),
        lambda: lab.resync("e", outputs=[(old("a", "encode", 7), "E")]),
    ]
    for claim in claims if first == "task" else reversed(claims):
        claim()
    lab.pass_time(6.0, alive=["e", "n", "c"])
    assert lab.ref("a") == old("a", "denoise", 8)
    assert lab.ledger.requests["a"].outputs[0].handle == "E"
    lab.done("a")
    assert lab.ref("a").stage == "decode"


def test_a_held_output_spares_its_stage() -> None:
    lab = restarted("a")
    lab.trio()
    lab.resync("e", outputs=[(old("a", "encode"), "E")])
    assert lab.holder("a") is None
    lab.ledger.release_hold()
    lab.act()
    assert [(a.ref.stage, a.input) for a in lab.take(fx.Assign)] == [("denoise", "E")]


def test_a_held_artefact_is_published() -> None:
    lab = restarted("a")
    lab.trio()
    lab.resync("c", outputs=[(old("a", "decode"), "C")])
    assert [publish.artifact for publish in lab.take(fx.Publish)] == ["C"]


def test_the_holder_may_come_and_go_during_the_hold() -> None:
    lab = restarted("a")
    lab.trio()
    lab.resync("e", outputs=[(old("a", "encode"), "E")])
    lab.lose("e")
    lab.worker("e2", ENCODE)
    lab.ledger.release_hold()
    lab.act()
    assert lab.ref("a").stage == "encode"


def test_a_claimed_task_may_be_lost_during_the_hold() -> None:
    lab = restarted("a")
    lab.trio()
    lab.resync("n", [(old("a", "denoise", 8), True)])
    lab.lose("n")
    assert lab.holder("a") is None
    assert lab.ledger.queued(ENCODE) == 0
    lab.resync("e", outputs=[(old("a", "encode"), "E")])
    lab.worker("n2", DENOISE)
    lab.ledger.release_hold()
    lab.act()
    assert (lab.holder("a"), lab.ref("a").stage) == ("n2", "denoise")


def test_the_furthest_claim_wins() -> None:
    lab = restarted("a")
    lab.trio()
    lab.resync("e", [(old("a", "encode", 3), True)])  # given up by the old head, and still at it
    lab.resync("c", [(old("a", "decode", 9), True)], [])
    assert lab.ref("a") == old("a", "decode", 9)
    assert lab.take(fx.CancelTask) == [fx.CancelTask("e", old("a", "encode", 3))]


def test_the_newer_of_two_outputs_is_kept() -> None:
    lab = restarted("a")
    lab.trio()
    lab.worker("e2", ENCODE)
    lab.resync("e", outputs=[(old("a", "encode", 3), "old")])
    lab.resync("e2", outputs=[(old("a", "encode", 5), "new")])
    assert lab.take(fx.Release) == [fx.Release("e", old("a", "encode", 3).key)]
    lab.resync("e", outputs=[(old("a", "encode", 3), "old")])
    assert lab.ledger.requests["a"].outputs[0].handle == "new"


def test_new_requests_do_not_wait_for_the_hold() -> None:
    lab = restarted("a")
    lab.worker("e", ENCODE)
    lab.submit("b")
    assert (lab.holder("a"), lab.holder("b")) == (None, "e")
