"""What happens to a request when nothing goes wrong: stages, outputs, publishing, order."""

from planner.run import effects as fx
from planner.run.book import Limits
from tests.planner.lab import DECODE, DENOISE, ENCODE, Lab


def test_a_request_passes_its_stages_and_is_published() -> None:
    lab = Lab()
    lab.trio()
    lab.submit("a")
    (assign,) = lab.take(fx.Assign)
    assert (assign.worker, assign.ref.stage, assign.attempt, assign.input) == ("e", "encode", 1, None)
    encoded = lab.done("a", "E")
    (assign,) = lab.take(fx.Assign)
    assert (assign.worker, assign.ref.stage, assign.input) == ("n", "denoise", "E")
    assert assign.ref.epoch > encoded.epoch
    lab.done("a", "N")
    lab.done("a", "C")
    (publish,) = lab.take(fx.Publish)
    assert (publish.ref.stage, publish.artifact, publish.attempts) == ("decode", "C", 1)
    assert "a" in lab.ledger.requests
    lab.ledger.published("a")
    lab.act()
    assert lab.ledger.requests == {}


def test_an_output_is_released_once_the_stage_after_the_next_has_begun() -> None:
    lab = Lab()
    lab.trio()
    lab.submit("a")
    encoded = lab.done("a")
    denoised = lab.done("a")
    assert (
        lab.take(fx.Release) == []
    )  # decode has it only on order: should denoise's output be lost, encode's is needed
    lab.start("a")
    assert lab.take(fx.Release) == [fx.Release("e", encoded.key)]
    decoded = lab.done("a")
    assert lab.take(fx.Release) == []
    lab.ledger.published("a")
    lab.act()
    assert set(lab.take(fx.Release)) == {fx.Release("n", denoised.key), fx.Release("c", decoded.key)}
    assert all(not worker.outputs for worker in lab.ledger.workers.values())


def test_a_failed_publication_computes_the_stage_again() -> None:
    lab = Lab()
    lab.trio()
    lab.submit("a")
    lab.done("a")
    lab.done("a")
    first = lab.done("a")
    lab.ledger.publish_failed("a", "the file was not uploaded")
    lab.act()
    assert fx.Release("c", first.key) in lab.take(fx.Release)
    second = lab.done("a", "again")
    assert second.epoch > first.epoch
    publish = lab.take(fx.Publish)[-1]
    assert (publish.ref, publish.artifact, publish.attempts) == (second, "again", 2)


def test_published_twice_or_too_early_changes_nothing() -> None:
    lab = Lab()
    lab.trio()
    lab.submit("a")
    lab.ledger.published("a")
    lab.ledger.publish_failed("a", "what?")
    assert lab.ledger.requests["a"].evidence == []
    for _ in range(3):
        lab.done("a")
    for _ in range(2):
        lab.ledger.published("a")
        lab.ledger.publish_failed("a", "too late")
    lab.act()
    assert lab.ledger.requests == {}
    assert lab.take(fx.Finish) == []


def test_first_come_first_served_within_a_priority() -> None:
    lab = Lab()
    lab.submit("a", "b", "c")
    lab.submit("urgent", priority=5)
    lab.worker("e", ENCODE)
    order = []
    for _ in range(4):
        (assign,) = lab.take(fx.Assign)
        order.append(assign.ref.request)
        lab.done(assign.ref.request)
    assert order == ["urgent", "a", "b", "c"]


def test_a_request_keeps_its_place_through_stages_and_retries() -> None:
    lab = Lab()
    lab.worker("e", ENCODE, prefetch=2)
    lab.submit("a", "b", "c")
    for name in ("c", "b", "a"):  # they leave encode in another order than they came
        lab.done(name)
    lab.take(fx.Assign)
    lab.worker("n", DENOISE)
    assert lab.holder("a") == "n"
    lab.fail("a")
    assert lab.holder("a") == "n"  # tried again before b and c
    lab.done("a")
    assert lab.holder("b") == "n"


def test_the_least_loaded_worker_gets_the_next_task() -> None:
    lab = Lab()
    lab.worker("e1", ENCODE, prefetch=2)
    lab.worker("e2", ENCODE, prefetch=2)
    lab.submit("a", "b", "c", "d")
    assert sorted(lab.holder(name) or "" for name in "abcd") == ["e1", "e1", "e2", "e2"]


def test_short_tasks_earn_more_credit_and_long_ones_do_not() -> None:
    lab = Lab()
    lab.worker("e", ENCODE, prefetch=2)
    worker = lab.ledger.workers["e"]
    assert worker.slots == 3
    worker.observe(0.001)
    assert worker.slots == 21
    for _ in range(40):
        worker.observe(1.0)
    assert worker.slots == 3
    worker.draining = True
    assert worker.slots == 0


def test_a_slow_stage_stops_the_one_before_it_and_lets_it_go_on() -> None:
    lab = Lab(Limits(min_window=4))
    lab.worker("e", ENCODE)
    lab.submit(*(f"r{n}" for n in range(20)))
    for n in range(4):
        lab.done(f"r{n}")
    assert lab.ledger.queued(DENOISE) == 4
    assert lab.holder("r4") is None  # enough waits in front of denoise
    assert len(lab.ledger.workers["e"].outputs) == 4
    lab.worker("n", DENOISE)  # takes r0
    assert lab.holder("r4") == "e"
    lab.done("r4")
    assert lab.holder("r5") is None
    lab.done("r0")  # denoise takes the next: encode may go on
    assert lab.holder("r5") == "e"


def test_a_block_that_goes_without_a_word_is_noticed_by_the_next_tick() -> None:
    lab = Lab(Limits(min_window=4))
    lab.worker("e", ENCODE)
    lab.submit(*(f"r{n}" for n in range(10)))
    for n in range(4):
        lab.done(f"r{n}")
    lab.ledger.cancel("r0")
    lab.act()
    lab.pass_time(0.25)
    assert lab.holder("r4") == "e"


def test_more_workers_widen_the_window() -> None:
    lab = Lab(Limits(min_window=4))
    lab.worker("e", ENCODE)
    for n in range(2):
        lab.worker(f"n{n}", DENOISE, prefetch=2)
    lab.submit(*(f"r{n}" for n in range(40)))
    for n in range(40):
        if lab.holder(f"r{n}") is None:
            break
        lab.done(f"r{n}")
    assert lab.ledger.queued(DENOISE) == 2 * 2 * 3
    assert lab.ledger.queued(DECODE) == 0
