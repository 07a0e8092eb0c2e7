"""Whether machines reach each other."""

from stages.protocol import Neighbour, Reached
from stages.reach import Doorbell, knock


def test_a_doorbell_answers_and_says_how_far_it_was() -> None:
    bell = Doorbell("127.0.0.1")
    ms = knock(bell.endpoint)
    assert ms is not None
    assert ms > 0
    assert bell.answers() == []  # it lets everybody in, and reads nothing
    bell.close()


def test_nobody_there_and_nonsense_are_no_answer() -> None:
    bell = Doorbell("127.0.0.1")
    bell.close()
    assert knock(bell.endpoint) is None
    assert knock("") is None
    assert knock("127.0.0.1|x") is None


def test_knocking_does_not_wait() -> None:
    here, there = Doorbell("127.0.0.1"), Doorbell("127.0.0.1")
    here.knock([Neighbour("n2", there.endpoint), Neighbour("n3", "127.0.0.1|")])
    found: list[Reached] = []
    while len(found) < 2:
        found += here.answers()
    assert found[0].node == "n2"
    assert found[0].ms is not None
    assert found[1] == Reached("n3", None)
    here.close()
    there.close()
