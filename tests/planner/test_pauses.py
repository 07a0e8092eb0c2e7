"""Pausing a task between two steps, and going on with it, in the ledger."""

from planner.domain import TaskRef
from planner.run import effects as fx
from planner.run.book import EPOCHS_PER_HEAD, Limits
from planner.run.dispatch import Waiting
from planner.run.orders import AskAgain, DispatchConfig, Order, Pause, Start, View
from tests.planner.lab import DENOISE, ENCODE, Lab


def denoising(*workers: str, limits: Limits | None = None) -> Lab:
    """Request ``a`` is denoised by the first of the workers."""
    lab = Lab(limits)
    lab.worker("e", ENCODE)
    for name in workers:
        lab.ledger.worker_ready(name, DENOISE, 0, lab.now, preemptible=True)
    lab.act()
    lab.submit("a")
    lab.done("a")
    lab.start("a")
    return lab


def pause(lab: Lab, *, step: int = 3, handle: str | None = "S", seconds: float = 1.5) -> TaskRef:
    ref, worker = lab.ref("a"), lab.holder("a")
    assert worker is not None
    assert lab.ledger.pause("a")
    lab.act()
    assert lab.take(fx.PauseTask) == [fx.PauseTask(worker, ref)]
    assert lab.ledger.paused(worker, ref, step, seconds, handle)
    lab.take(fx.Assign)
    lab.act()
    return ref


def test_a_paused_task_goes_on_from_its_snapshot_and_keeps_its_input() -> None:
    lab = denoising("n")
    first = pause(lab)
    [again] = lab.take(fx.Assign)
    assert (again.input, again.resumed_at, again.spent_s, again.attempt) == ("S", 3, 1.5, 1)
    assert again.ref.epoch > first.epoch
    assert 0 in lab.ledger.requests["a"].outputs
    lab.done("a")
    assert fx.Release("n", first.key) in lab.take(fx.Release)
    assert lab.ledger.requests["a"].snapshot is None


def test_on_another_worker_when_its_own_drains_and_then_it_is_let_go() -> None:
    lab = denoising("n", "other")
    lab.ledger.worker_draining("n")
    first = pause(lab)
    assert lab.holder("a") == "other"
    assert lab.ledger.source_of(lab.ref("a")) == "n"
    lab.start("a")
    assert lab.take(fx.Release) == [fx.Release("n", first.key)]  # the input has arrived, and its holder wants to go


def test_a_lost_snapshot_costs_the_steps_and_nothing_else() -> None:
    lab = denoising("n")
    lab.worker("other", DENOISE)
    lab.ledger.worker_draining("other")
    lab.ledger.worker_draining("n")
    pause(lab)
    assert lab.holder("a") is None
    lab.lose("n")
    lab.worker("other", DENOISE)
    [again] = lab.take(fx.Assign)
    assert (again.worker, again.resumed_at, again.input) == ("other", 0, "<a/encode/4294967297>")
    assert lab.ledger.requests["a"].evidence == []


def test_a_lost_input_is_no_loss_to_a_paused_task() -> None:
    lab = denoising("n")
    lab.ledger.worker_draining("n")
    pause(lab)
    lab.lose("e")
    lab.worker("n", DENOISE)
    assert lab.take(fx.Assign)[-1].resumed_at == 3


def test_without_a_snapshot_it_begins_anew() -> None:
    lab = denoising("n")
    pause(lab, step=0, handle=None)
    [again] = lab.take(fx.Assign)
    assert (again.resumed_at, again.ref.stage) == (0, "denoise")


def test_pauses_are_bounded_and_no_tries() -> None:
    lab = denoising("n", limits=Limits(max_pauses=2))
    for step in (1, 2):
        pause(lab, step=step)
        lab.start("a")
    assert not lab.ledger.pause("a")
    assert lab.ledger.pause("a", bounded=False)
    assert lab.ledger.requests["a"].evidence == []


def test_a_refused_pause_is_not_asked_for_again() -> None:
    lab = denoising("n")
    assert lab.ledger.pause("a")
    assert not lab.ledger.pause("a")  # it is on its way
    lab.ledger.pause_refused("n", lab.ref("a"))
    lab.act()
    assert not lab.ledger.pause("a")
    assert lab.ledger.requests["a"].lease is not None


def test_what_cannot_pause_is_left_alone() -> None:
    lab = Lab()
    lab.worker("e", ENCODE)
    lab.submit("a", "b")
    lab.start("a")
    assert not lab.ledger.pause("a")
    assert not lab.ledger.pause("b")
    assert not lab.ledger.pause("nobody")


def test_a_late_word_of_a_pause_is_fenced() -> None:
    lab = denoising("n")
    ref = lab.ref("a")
    lab.ledger.cancel("a")
    lab.act()
    lab.take(fx.Release)
    assert not lab.ledger.paused("n", ref, 3, 1.0, "S")
    lab.act()
    assert lab.take(fx.Release) == [fx.Release("n", ref.key)]


def test_a_failed_resumption_does_not_trust_the_snapshot_again() -> None:
    lab = denoising("n")
    first = pause(lab)
    lab.fail("a")
    assert fx.Release("n", first.key) in lab.take(fx.Release)
    assert lab.take(fx.Assign)[-1].resumed_at == 0


# --- lost messages, new heads ---


def test_a_pause_that_was_lost_on_the_way_is_ordered_again() -> None:
    lab = denoising("n")
    lab.ledger.pause("a")
    lab.act()
    lab.take(fx.PauseTask)
    lab.resync("n", [(lab.ref("a"), True)])
    assert lab.take(fx.PauseTask) == [fx.PauseTask("n", lab.ref("a"))]


def test_lost_word_of_a_pause_is_made_good_by_the_snapshot() -> None:
    lab = denoising("n")
    ref = lab.ref("a")
    lab.ledger.pause("a")
    lab.take(fx.Assign)
    lab.ledger.resync("n", [], [], lab.now, [(ref, "S", 3, 1.5)])
    lab.act()
    assert lab.take(fx.Assign)[-1].resumed_at == 3


def test_a_new_head_goes_on_from_the_furthest_snapshot() -> None:
    lab = Lab(incarnation=2)
    lab.ledger.recover([lab.request("a")], lab.now, 5.0)
    for name, step in (("n", 2), ("m", 5), ("o", 3)):
        lab.ledger.worker_ready(name, DENOISE, 0, lab.now, preemptible=True)
        ref = TaskRef("a", "denoise", EPOCHS_PER_HEAD + step)
        lab.ledger.resync(name, [], [], lab.now, [(ref, f"S{step}", step, 1.0)])
    lab.act()
    assert {effect.worker for effect in lab.take(fx.Release)} == {"n", "o"}
    lab.ledger.release_hold()
    lab.act()
    [again] = lab.take(fx.Assign)
    assert (again.input, again.resumed_at) == ("S5", 5)


# --- by a policy ---


class Script:
    """Gives these orders, one list a question."""

    def __init__(self, *orders: list[Order]) -> None:
        self.orders, self.views = list(orders), list[View]()

    def decide(self, view: View, now: float) -> list[Order]:
        self.views.append(view)
        return self.orders.pop(0) if self.orders else []


def test_a_policy_sees_what_there_is_and_is_obeyed() -> None:
    lab = Lab()
    script = Script([], [], [Start(("b",), "n")], [Pause("b", "a cannot wait")])
    lab.ledger.serve_by((DispatchConfig("edf", max_pauses=3), script))
    lab.ledger.worker_ready("n", ENCODE, 2, lab.now, preemptible=True, accelerator="H100")
    lab.act()
    lab.submit("a")
    lab.submit("b")
    assert [job.request for job in script.views[-1].pending] == ["a", "b"]
    assert script.views[-1].instances[0].accelerator == "H100"
    assert (lab.holder("a"), lab.holder("b")) == (None, "n")
    lab.start("b")
    lab.pass_time(0.25, alive=["n"])
    assert lab.take(fx.PauseTask) == [fx.PauseTask("n", lab.ref("b"))]
    lab.ledger.stepped("n", lab.ref("b"), 2, 10, lab.now)
    lab.ledger.paused("n", lab.ref("b"), 3, 1.0, "S")
    lab.act()
    job = next(job for job in script.views[-1].pending if job.request == "b")
    assert (job.steps, job.left, job.pauses, job.held_by) == (10, 7, 1, "n")


def test_orders_that_no_longer_fit_change_nothing() -> None:
    lab = Lab()
    stale: list[Order] = [Start(("nobody",), "n"), Start(("a",), "gone"), Pause("a", ""), Start(("a",), "n")]
    lab.ledger.serve_by((DispatchConfig("edf"), Script([], stale)))
    lab.worker("n", DENOISE)
    lab.submit("a")
    assert lab.holder("a") is None  # the worker denoises, and it is to be encoded


def test_a_policy_is_asked_again_when_it_wants() -> None:
    lab = Lab()
    script = Script([AskAgain(1.0)])
    lab.ledger.serve_by((DispatchConfig("edf"), script))
    lab.worker("e", ENCODE)
    asked = len(script.views)
    lab.pass_time(0.75, alive=["e"])
    assert len(script.views) == asked
    lab.pass_time(0.5, alive=["e"])
    assert len(script.views) == asked + 1


def test_a_queue_that_a_policy_takes_from_does_not_grow() -> None:
    line = Waiting()
    for seq in range(10_000):
        line.push(f"r{seq}", 0, seq)
        if seq >= 10:
            line.discard(f"r{seq - 10}")
    assert len(line._heap) < 1_000
    assert [line.pop() for _ in range(11)] == [*(f"r{seq}" for seq in range(9_990, 10_000)), None]
