"""Which tasks a worker computes at once."""

from planner.domain import Batch, TaskRef
from stages.line import COMPUTING, FETCHING, PATIENCE_BEATS, READY, Held, Line, gather
from stages.protocol import Task


def held(name: str, label: str | None = "a", state: str = READY, most: int = 3) -> Held:
    batch = None if label is None else Batch(label, most)
    return Held(Task(TaskRef(name, "denoise", 1), "m", 1, b"{}", batch=batch), state)


def groups(tasks: list[Held], room: int = 2, *, busy: bool = False, hearing: bool = False) -> list[str]:
    found = gather(tasks, room, busy=busy, hearing=hearing)
    return ["".join(h.task.ref.request for h in group) for group in found]


def test_without_labels_each_task_is_a_group() -> None:
    assert groups([held(name, None) for name in "abc"]) == ["a", "b"]


def test_what_waits_is_taken_together_as_far_as_it_fits() -> None:
    tasks = [held("a"), held("b", "other"), held("c"), held("d"), held("e")]
    assert groups(tasks) == ["acd"]  # the next one could still grow while this one computes
    assert [h.state for h in tasks] == [COMPUTING, READY, COMPUTING, COMPUTING, READY]


def test_a_full_batch_stands_in_line_and_one_that_can_grow_does_not() -> None:
    assert groups([held(name) for name in "abc"], busy=True) == ["abc"]
    assert groups([held(name) for name in "ab"], busy=True) == []


def test_it_waits_for_the_rest_of_the_turn_and_for_inputs_on_their_way() -> None:
    assert groups([held("a")], hearing=True) == []
    late = held("b", state=FETCHING)
    assert groups([held("a"), late]) == []
    assert not any(Line().tire([late]) for _ in range(PATIENCE_BEATS - 1))
    assert Line().tire([late])
    assert groups([held("a"), late]) == ["a"]


def test_members_leave_the_line_one_by_one() -> None:
    line, refs = Line(), [TaskRef(name, "denoise", 1) for name in "abc"]
    line.add(refs[:2])
    line.add(refs[2:])
    assert line.leave(refs[1])
    assert list(line.first) == refs[:1]
    assert line.leave(refs[0])
    assert list(line.first) == refs[2:]
    assert not line.leave(refs[0])
