"""Tasks in a worker's hands, and the line of the compute thread: groups of them, each computed at once.

A group is one task, or tasks of one batch label. It is made when it may begin, of all that are ready then, so that a batch is
as large as the backlog and no task waits for others that may come. Only for those that are here already, and whose input
is being fetched, it waits a little.
"""

from collections import deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Final

import msgspec

from planner.domain import TaskRef
from stages.protocol import Task, Via

QUEUED: Final = "queued"
FETCHING: Final = "fetching"
READY: Final = "ready"
COMPUTING: Final = "computing"
PUBLISHING: Final = "publishing"

PATIENCE_BEATS: Final = 2  # heartbeats that others of its batch wait for a task's input


class Held(msgspec.Struct):
    """A task in the worker's hands. ``beats``: heartbeats since its batch waits for its input."""

    task: Task
    state: str
    started: bool = False
    cancelled: bool = False
    fetch_s: float = 0.0
    seconds: float = 0.0
    via: Via | None = None
    cached: bool | None = None
    step: int = 0  # paused after so many of ``steps``
    steps: int = 0
    batch: int = 1
    beats: int = 0


class Line:
    """What the compute thread was given, in order; the first group is being computed. Members leave one by one."""

    def __init__(self) -> None:
        self._groups: deque[list[TaskRef]] = deque()

    def __len__(self) -> int:
        return len(self._groups)

    @property
    def first(self) -> Sequence[TaskRef]:
        """What is being computed."""
        return self._groups[0] if self._groups else ()

    def add(self, group: list[TaskRef]) -> None:
        """To be computed at once, after those before."""
        self._groups.append(group)

    def leave(self, ref: TaskRef) -> bool:
        """A task is over, stopped, or was passed by. False: it was not in line."""
        for group in self._groups:
            if ref in group:
                group.remove(ref)
                if not group:
                    self._groups.remove(group)
                return True
        return False

    def tire(self, tasks: Iterable[Held]) -> bool:
        """A heartbeat has passed. Whether a batch that waited for a late input may now begin without it."""
        over = False
        for held in tasks:
            if held.task.batch is not None and held.state in (QUEUED, FETCHING):
                held.beats += 1
                over = over or held.beats == PATIENCE_BEATS
        return over


def gather(tasks: Collection[Held], room: int, *, busy: bool, hearing: bool) -> Iterator[list[Held]]:
    """Up to ``room`` groups of what is ready, oldest first; their tasks are then COMPUTING.

    A batch that could still grow begins only when nothing else computes (``busy``), and when all of it that came in one turn
    has been heard (``hearing``).
    """
    ready = [held for held in tasks if held.state == READY]
    for held in ready:
        if room <= 0:
            return
        if held.state != READY:
            continue  # with one before it
        group = [held]
        if held.task.batch is not None:
            group = [h for h in ready if h.state == READY and _together(h, held)][: held.task.batch.most]
            grows = len(group) < held.task.batch.most
            if grows and (busy or hearing or any(_coming(h) and _together(h, held) for h in tasks)):
                return
        for member in group:
            member.state = COMPUTING
        yield group
        busy, room = True, room - 1


def _together(one: Held, other: Held) -> bool:
    return (
        one.task.batch is not None and other.task.batch is not None and one.task.batch.label == other.task.batch.label
    )


def _coming(held: Held) -> bool:
    return held.state in (QUEUED, FETCHING) and not held.cancelled and held.beats < PATIENCE_BEATS
