"""How many of its worker's GPUs a task is spread over: as ordered, at its start or while it is computed."""

import pytest

from planner.domain import Role, Shape, TaskRef
from planner.run import effects as fx
from planner.run.book import Request
from planner.run.ledger import Ledger
from planner.run.orders import DispatchConfig, Kind, Order, SetDegree, Start, View
from planner.run.policies import make
from planner.run.step_times import StepTimes
from planner.run.timings import Timings

DENOISE = Role("m", "denoise")


def ledger(gpus: int) -> Ledger:
    found = Ledger(1)
    found.policy = Nobody()
    found.worker_ready("w", DENOISE, 2, 0.0, preemptible=True, gpus=gpus)
    found.submit(Request("a", "m", ("denoise",), b"{}", 0, 0.0))
    return found


class Nobody:
    """A policy that leaves everything to the test."""

    def decide(self, view: View, now: float) -> list[Order]:
        return []


def test_a_task_starts_at_a_degree_and_changes_it() -> None:
    book = ledger(gpus=4)
    assert book.view().instances[0].degrees == (1, 2, 4)
    book.obey(Start(("a",), "w", degree=2), 0.0)
    (assign,) = book.effects(0.0)
    assert isinstance(assign, fx.Assign)
    assert assign.degree == 2
    assert book.view().running[0].degree == 2
    book.obey(SetDegree("a", 4), 0.0)
    assert book.effects(0.0) == [fx.SpreadTask("w", assign.ref, 4)]
    assert book.view().running[0].degree == 4


def test_more_gpus_than_there_are_is_no_order() -> None:
    book = ledger(gpus=2)
    book.obey(Start(("a",), "w"), 0.0)
    book.effects(0.0)
    book.obey(SetDegree("a", 4), 0.0)
    assert book.effects(0.0) == []


def test_a_new_head_says_what_it_takes_a_task_to_be_on() -> None:
    book, ref = ledger(gpus=2), TaskRef("a", "denoise", 7)
    book.resync("w", [(ref, True)], [], 0.0)
    assert book.effects(0.0) == [fx.SpreadTask("w", ref, 2)]
    assert book.degree(book.requests["a"].lease) == 2
    assert book.degree(None) is None


# --- who decides ---

SHAPE, STEPS = Shape(64, 64, 1, 20), 20


class Spread:
    """A policy, and a worker of two GPUs whose steps take so many seconds on one and on two."""

    def __init__(self, kind: Kind, one_s: float, two_s: float, *, elastic: bool = True) -> None:
        self.book, self.now, self.step_s = Ledger(1), 0.0, {1: one_s, 2: two_s}
        times = StepTimes(Timings(lambda *_: None), self.book.goes_in_steps, lambda _: 30.0, self.book.pace)
        config = DispatchConfig(kind, elastic=elastic)
        self.book.serve_by((config, make(config, times)))
        self.book.worker_ready("w", DENOISE, 2, 0.0, preemptible=True, gpus=2)

    def request(self, name: str) -> list[int]:
        """The degree of each of its steps."""
        self.book.submit(Request(name, "m", ("denoise",), b"{}", 0, self.now, shape=SHAPE))
        (assign,) = (one for one in self.book.effects(self.now) if isinstance(one, fx.Assign))
        self.book.started("w", assign.ref, self.now)
        degree, had = assign.degree, []
        for step in range(STEPS):
            had.append(degree)
            self.now += self.step_s[degree]
            self.book.stepped("w", assign.ref, step + 1, STEPS, self.now)
            for effect in self.book.effects(self.now):
                assert isinstance(effect, fx.SpreadTask)
                degree = effect.degree
        self.finish(assign.ref)
        return had

    def finish(self, ref: TaskRef) -> None:
        self.book.done("w", ref, "picture", 1.0)
        self.book.effects(self.now)
        self.book.published(ref.request)


@pytest.mark.parametrize("kind", ["genserve", "trident"])
@pytest.mark.parametrize(("one_s", "two_s", "best"), [(1.0, 1.5, 1), (1.0, 0.6, 2)])
def test_both_degrees_are_tried_in_the_first_request_and_the_quicker_one_is_kept(
    kind: Kind, one_s: float, two_s: float, best: int
) -> None:
    spread = Spread(kind, one_s, two_s)
    first = spread.request("a")
    assert first[0] == 2
    assert {first[8], first[-1]} == {1, best}
    assert spread.request("b") == [best] * STEPS


def test_what_is_about_as_quick_is_left_as_it_is() -> None:
    spread = Spread("genserve", 1.0, 1.05)
    assert len(set(spread.request("a"))) == 2
    assert len(set(spread.request("b"))) == 1


@pytest.mark.parametrize("kind", ["edf", "genserve", "trident"])
def test_all_gpus_where_nothing_may_change(kind: Kind) -> None:
    assert Spread(kind, 1.0, 1.5, elastic=False).request("a") == [2] * STEPS
