"""Workers that die, fall silent or return; tries that fail; outputs that are lost."""

import pytest

from planner.run import effects as fx
from planner.run.book import Limits
from tests.planner.lab import DECODE, DENOISE, ENCODE, Lab


def test_a_silent_worker_loses_its_lease_and_another_gets_the_task() -> None:
    lab = Lab()
    lab.worker("e1", ENCODE)
    lab.submit("a")
    first = lab.ref("a")
    lab.worker("e2", ENCODE)
    lab.pass_time(4.5, alive=["e2"])
    assert lab.holder("a") == "e1"
    lab.pass_time(1.5, alive=["e2"])
    assert lab.holder("a") == "e2"
    assert lab.ref("a").epoch > first.epoch
    assert lab.ledger.redelivered == 1


def test_a_late_result_is_fenced_and_released() -> None:
    lab = Lab()
    lab.worker("e1", ENCODE)
    lab.submit("a")
    late = lab.start("a")
    lab.worker("e2", ENCODE)
    lab.pass_time(6.0, alive=["e2"])
    assert lab.ledger.done("e1", late, "late", 0.1) is False
    lab.act()
    assert lab.take(fx.Release) == [fx.Release("e1", late.key)]
    assert lab.ledger.fenced == 1
    assert lab.holder("a") == "e2"
    lab.done("a", "timely")
    assert lab.ledger.requests["a"].outputs[0].handle == "timely"


def test_only_what_it_was_computing_is_charged() -> None:
    lab = Lab()
    lab.worker("e", ENCODE, prefetch=2)
    lab.submit("sending", "computing", "waiting")
    lab.start("sending")
    lab.start("computing")  # so the first is through, and its result on its way
    lab.lose("e")
    evidence = {name: len(request.evidence) for name, request in lab.ledger.requests.items()}
    assert evidence == {"sending": 0, "computing": 1, "waiting": 0}


def test_the_flight_recorder_overrules_what_was_heard() -> None:
    lab = Lab()
    lab.worker("e", ENCODE, prefetch=2)
    lab.submit("a", "b")
    lab.start("a")
    lab.ledger.worker_lost("e", "killed", charge=[lab.ref("b")])  # its Started did not make it
    lab.act()
    assert [len(lab.ledger.requests[name].evidence) for name in "ab"] == [0, 1]
    lab.worker("e2", ENCODE, prefetch=2)
    lab.start("a")
    lab.ledger.worker_lost("e2", "killed while idle", charge=())
    lab.act()
    assert lab.ledger.requests["a"].evidence == []


def test_three_charged_tries_on_different_workers_make_a_dead_letter() -> None:
    lab = Lab()
    for n in range(4):
        lab.worker(f"e{n}", ENCODE)
    lab.submit("a")
    tried = []
    for _ in range(3):
        tried.append(lab.holder("a"))
        lab.fail("a")
    (finish,) = lab.take(fx.Finish)
    assert (finish.outcome, finish.code, finish.attempts) == ("failed", "dead_letter", 3)
    assert [attempt.worker for attempt in finish.evidence] == tried
    assert len(set(tried)) == 3
    assert finish.evidence[0] == fx.Attempt("e0", "encode", "RuntimeError", "it broke")
    assert lab.ledger.requests == {}


def test_a_blamed_worker_is_avoided_only_if_another_has_credit() -> None:
    lab = Lab()
    lab.worker("e1", ENCODE)
    lab.submit("a")
    lab.fail("a")
    assert lab.holder("a") == "e1"  # nobody else is there
    lab.worker("e2", ENCODE)
    lab.fail("a")
    assert lab.holder("a") == "e2"


def test_a_try_that_never_began_is_free_up_to_a_bound() -> None:
    lab = Lab(Limits(max_losses=10))
    lab.submit("a")
    for n in range(10):
        lab.worker(f"e{n}", ENCODE)
        lab.lose(f"e{n}")
        assert lab.ledger.requests["a"].evidence == []
    lab.worker("last", ENCODE)
    lab.lose("last")
    (finish,) = lab.take(fx.Finish)
    assert (finish.code, finish.evidence[0].code) == ("dead_letter", "lost")


def test_who_waited_behind_a_task_that_killed_the_worker_is_not_worn_out_by_it() -> None:
    lab = Lab(Limits(max_losses=2, max_attempts=3, min_window=8))
    for poison in range(4):
        lab.submit(f"poison{poison}")
    lab.submit("good")
    for n in range(12):
        lab.worker(f"e{n}", ENCODE, prefetch=4)
        lab.start(f"poison{n // 3}")
        assert lab.holder("good") == f"e{n}"
        lab.lose(f"e{n}")
    assert [finish.code for finish in lab.take(fx.Finish)] == ["dead_letter"] * 4
    assert lab.ledger.requests["good"].losses == 0


def test_progress_forgives_losses_but_going_round_in_circles_does_not() -> None:
    lab = Lab(Limits(max_losses=3))
    lab.worker("e", ENCODE)
    lab.submit("a")
    lab.done("a")
    for n in range(3):
        lab.worker(f"n{n}", DENOISE)
        lab.ledger.input_lost(f"n{n}", lab.ref("a"), lab.ledger.requests["a"].outputs[0].ref.key, "gone")
        lab.act()
        lab.lose(f"n{n}")
        lab.done("a")  # encode again: no further than before
    assert lab.ledger.requests["a"].losses == 3
    lab.worker("n", DENOISE)
    lab.done("a")
    assert lab.ledger.requests["a"].losses == 0


def test_a_refused_request_is_not_tried_again() -> None:
    lab = Lab()
    lab.trio()
    lab.submit("a")
    lab.ledger.failed("e", lab.start("a"), "bad_request", "no such size", retry=False, param="size")
    lab.act()
    (finish,) = lab.take(fx.Finish)
    assert (finish.outcome, finish.code, finish.param, finish.attempts) == ("failed", "bad_request", "size", 1)


def test_upstream_is_not_computed_again_while_its_output_is_held() -> None:
    lab = Lab()
    lab.trio()
    lab.submit("a")
    lab.done("a", "E")
    lab.start("a")
    lab.worker("n2", DENOISE)
    lab.take(fx.Assign)
    lab.lose("n")
    (assign,) = lab.take(fx.Assign)
    assert (assign.worker, assign.ref.stage, assign.input, assign.attempt) == ("n2", "denoise", "E", 2)


def test_losing_the_holder_of_an_output_that_waits_goes_back_a_stage() -> None:
    lab = Lab()
    lab.worker("e", ENCODE)
    lab.submit("a")
    lab.done("a")
    lab.worker("e2", ENCODE)
    lab.lose("e")
    assert (lab.holder("a"), lab.ref("a").stage) == ("e2", "encode")
    assert lab.ledger.requests["a"].evidence == []


def test_losing_the_holder_while_the_next_stage_has_the_task_costs_nothing_if_it_has_the_input() -> None:
    lab = Lab()
    lab.trio()
    lab.submit("a")
    lab.done("a")
    lab.lose("e")
    assert lab.ref("a").stage == "denoise"
    lab.done("a")
    assert lab.ref("a").stage == "decode"


@pytest.mark.parametrize("how", ["returned", "lost", "failed"])
def test_a_task_that_comes_back_after_its_input_died_starts_further_up(how: str) -> None:
    lab = Lab()
    lab.trio()
    lab.worker("e2", ENCODE)
    lab.submit("a")
    lab.done("a")
    ref = lab.ref("a")
    lab.lose("e")
    match how:
        case "returned":
            lab.ledger.returned("n", ref)
        case "lost":
            lab.ledger.worker_lost("n", "gone")
        case _:
            lab.ledger.failed("n", ref, "RuntimeError", "it broke", retry=True)
    lab.act()
    assert (lab.holder("a"), lab.ref("a").stage) == ("e2", "encode")


def test_an_input_that_cannot_be_had_is_made_again() -> None:
    lab = Lab()
    lab.trio()
    lab.submit("a")
    encoded = lab.done("a")
    lab.done("a")
    ref = lab.ref("a")
    key = lab.ledger.requests["a"].outputs[1].ref.key
    lab.ledger.input_lost("c", ref, key, "no route")
    lab.act()
    assert fx.Release("n", key) in lab.take(fx.Release)
    assert lab.ref("a").stage == "denoise"  # encode's output is still there
    lab.ledger.input_lost("n", lab.ref("a"), encoded.key, "no route either")
    lab.act()
    assert lab.ref("a").stage == "encode"
    assert lab.ledger.requests["a"].evidence == []


def test_losing_a_later_output_keeps_the_earlier_one_in_use() -> None:
    lab = Lab()
    lab.worker("e", ENCODE)
    lab.worker("n", DENOISE)
    lab.submit("a")
    lab.done("a", "E")
    lab.done("a")
    lab.worker("n2", DENOISE)
    lab.take(fx.Assign)
    lab.lose("n")
    assert [(a.worker, a.input) for a in lab.take(fx.Assign)] == [("n2", "E")]


def test_a_result_that_is_being_published_survives_its_worker() -> None:
    lab = Lab()
    lab.trio()
    lab.submit("a")
    for _ in range(3):
        lab.done("a")
    for name in ("e", "n", "c"):
        lab.lose(name)
    assert lab.ledger.requests["a"].publishing is not None
    lab.worker("e2", ENCODE)
    lab.ledger.publish_failed("a", "the bytes went with the worker")
    lab.act()
    assert lab.ref("a").stage == "encode"


def test_a_returned_task_is_free_and_its_worker_gets_nothing_until_it_is_ready() -> None:
    lab = Lab()
    lab.worker("e", ENCODE)
    lab.submit("a")
    lab.ledger.returned("e", lab.ref("a"))
    lab.act()
    assert lab.holder("a") is None
    assert lab.ledger.requests["a"].losses == 0
    lab.worker("e", ENCODE)
    assert lab.holder("a") == "e"


def test_a_worker_that_becomes_something_else_loses_its_tasks_and_keeps_its_outputs() -> None:
    lab = Lab()
    lab.trio()
    lab.submit("a")
    lab.done("a")
    lab.submit("b")
    lab.ledger.worker_ready("e", DECODE, 0, lab.now)
    lab.ledger.worker_ready("n", DECODE, 0, lab.now)
    lab.act()
    assert {lab.ledger.takes(name) for name in "en"} == {DECODE}
    assert (lab.holder("a"), lab.holder("b")) == (None, None)
    assert lab.ledger.queued(DENOISE) == 1, "what encode made is still there"
    lab.worker("n2", DENOISE)
    assert lab.ref("a").stage == "denoise"


def test_a_draining_worker_keeps_what_it_has_and_gets_no_more() -> None:
    lab = Lab()
    lab.worker("e", ENCODE, prefetch=1)
    lab.submit("a")
    lab.ledger.worker_draining("e")
    lab.submit("b")
    assert (lab.holder("a"), lab.holder("b")) == ("e", None)
    lab.done("a")
    assert lab.holder("b") is None
