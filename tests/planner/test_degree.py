"""How many of its worker's GPUs a task is spread over: as ordered, at its start or while it is computed."""

from planner.domain import Role
from planner.run import effects as fx
from planner.run.book import Request
from planner.run.ledger import Ledger
from planner.run.orders import Order, SetDegree, Start, View

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
