"""Which machines to launch, drain, release and close."""

from typing import Any

import pytest

from planner.domain import Offer
from planner.run.fleet import NodeWish
from planner.run.nodes import (
    CAPACITY_PAUSE_S,
    DRAIN_S,
    GIVEN_UP_S,
    JOIN_S,
    LAUNCH_S,
    LONGEST_PAUSE_S,
    MOST_FAILURES,
    RELEASE_AGAIN_S,
    SETTLED_S,
    SILENT_S,
    Close,
    Drain,
    Fail,
    Launch,
    Lose,
    Machine,
    Release,
    Trouble,
    reconcile,
    troubled,
)

OFFER = Offer("cloud", "east", "big", "H100", 1, False, 4.0)
WISH = NodeWish("h100", (OFFER,), 2)
OLD = SETTLED_S + 1


def up(node: str = "n1", **more: Any) -> Machine:
    fields: dict[str, Any] = {"state": "up", "age_s": OLD, "state_s": OLD, "silent_s": 0.5, "listed": "up"} | more
    return Machine(node, "h100", **fields)


def test_what_is_missing_is_launched_and_after_trouble_one_at_a_time() -> None:
    assert reconcile([WISH], [], {}, 0.0) == [Launch(WISH), Launch(WISH)]
    assert reconcile([WISH], [up()], {}, 0.0) == [Launch(WISH)]
    trouble = {"h100": Trouble("no_capacity", 1, 10.0)}
    assert reconcile([WISH], [], trouble, 9.9) == []
    assert reconcile([WISH], [], trouble, 10.0) == [Launch(WISH)]


def test_whatever_is_on_its_way_counts() -> None:
    coming = [up("n1", state="requested", listed="", silent_s=None), up("n2", state="launching", silent_s=None)]
    assert reconcile([WISH], coming, {}, 0.0) == []


def test_too_many_those_that_are_not_there_yet_go_first_then_the_youngest() -> None:
    machines = [
        up("n1", state_s=500.0),
        up("n2", state_s=200.0),
        up("n3", state="launching", silent_s=None),
        up("n4", state_s=300.0),
    ]
    assert [(type(a), getattr(a, "node", "")) for a in reconcile([WISH], machines, {}, 0.0)] == [
        (Drain, "n3"),
        (Drain, "n2"),
    ]
    assert [type(action) for action in reconcile([], machines, {}, 0.0)] == [Drain] * 4
    assert reconcile([], [up(acting=True)], {}, 0.0) == []


@pytest.mark.parametrize(
    ("machine", "lag_s", "expected"),
    [
        (up(listed="gone"), 60.0, None),  # its agent talks: the list is wrong
        (up(listed="gone", silent_s=4.0), 60.0, Lose),
        (up(listed="gone"), 0.0, Lose),  # a list that cannot lag
        (up(listed="gone", state="launching", silent_s=None, age_s=59.0), 60.0, None),
        (up(listed="gone", state="launching", silent_s=None, age_s=60.0), 60.0, Lose),
        (up(silent_s=SILENT_S), 60.0, None),
        (up(silent_s=SILENT_S + 1), 60.0, Lose),
        (up(silent_s=None, state_s=JOIN_S + 1), 60.0, Lose),
        (up(silent_s=None, state="launching", age_s=LAUNCH_S + 1), 60.0, Lose),
        (up(state="launching", listed="failed"), 60.0, Fail),
        (up(state="draining", workers=1), 60.0, None),
        (up(state="draining", workers=1, state_s=DRAIN_S + 1), 60.0, Release),
        (up(state="draining"), 60.0, Release),
        (up(state="lost", state_s=RELEASE_AGAIN_S), 60.0, Release),
        (up(state="releasing", listed="gone", confirmed=1), 60.0, None),
        (up(state="releasing", listed="gone", confirmed=2), 60.0, Close),
        (up(state="releasing", listed="failed", confirmed=2), 60.0, Close),
        (up(state="releasing", listed="gone", confirmed=2, age_s=30.0), 60.0, None),
    ],
)
def test_one_machine(machine: Machine, lag_s: float, expected: type | None) -> None:
    wishes = [NodeWish("h100", (OFFER,), 1)] if machine.state in {"requested", "launching", "up"} else []
    found = [action for action in reconcile(wishes, [machine], {}, 0.0, lag_s) if not isinstance(action, Launch)]
    assert [type(action) for action in found] == ([expected] if expected else [])


def test_a_lost_machine_is_replaced_in_the_same_turn() -> None:
    actions = reconcile([WISH], [up("n1"), up("n2", listed="gone", silent_s=9.0)], {}, 0.0, 60.0)
    assert [type(action) for action in actions] == [Lose, Launch]


def test_one_that_failed_or_died_young_is_not_replaced_before_its_pause() -> None:
    wish = NodeWish("h100", (OFFER,), 1)
    failed = up(state="launching", listed="failed", silent_s=None)
    assert [type(action) for action in reconcile([wish], [failed], {}, 0.0, 60.0)] == [Fail]
    young = up(listed="gone", silent_s=9.0, age_s=70.0)
    assert [type(action) for action in reconcile([wish], [young], {}, 0.0, 60.0)] == [Lose]


def test_pauses_grow_are_bounded_and_end_in_giving_up() -> None:
    trouble = None
    pauses = []
    for _ in range(MOST_FAILURES):
        trouble = troubled(trouble, "no_capacity", 0.0)
        pauses.append(trouble.not_before_s)
    assert pauses[0] == CAPACITY_PAUSE_S
    assert pauses[:-1] == sorted(pauses[:-1])
    assert max(pauses[:-1]) <= LONGEST_PAUSE_S
    assert trouble is not None
    assert (pauses[-1], trouble.given_up) == (GIVEN_UP_S, True)
    assert troubled(None, "impossible", 0.0).given_up
    assert troubled(None, "lost", 0.0).not_before_s == 1.0
