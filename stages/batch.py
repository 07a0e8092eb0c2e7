"""A group of tasks in the compute thread: split by what fits together, and computed as one batch."""

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from planner.domain import TaskRef
from stages.models.base import Batching, BatchJob, File
from stages.parcel import Parcel
from stages.protocol import Task


class Member(msgspec.Struct):
    """A task of a group, ``place``: in its batch. ``over``: there is nothing left to do for it."""

    task: Task
    params: dict[str, Any]
    inputs: Any  # a Parcel, or None
    place: int = 0
    over: bool = False


def split(model: Batching, members: Sequence[Member]) -> list[list[Member]]:
    """Those that the model can compute at once, in the order of the first of each."""
    groups: list[tuple[str | None, list[Member]]] = []
    for member in members:
        key = model.batch_key(member.params, member.inputs)
        room = (group for other, group in groups if other == key and len(group) < model.max_batch)
        group = None if key is None else next(room, None)
        if group is None:
            groups.append((key, [member]))
        else:
            group.append(member)
    return [group for _, group in groups]


def run_together(
    model: Batching,
    members: Sequence[Member],
    leaves: Callable[[Member, BatchJob], bool],
    tell: Callable[[Sequence[TaskRef], int, int], None],
) -> list[tuple[Member, Parcel | File]]:
    """Compute a batch. Members that ``leave`` do so between two steps; with the last of them the batch ends."""
    job = model.start_batch([(member.params, member.inputs) for member in members])
    for place, member in enumerate(members):
        member.place = place
    present = dict(enumerate(members))
    more = True
    while more:
        for place, member in list(present.items()):
            if leaves(member, job):
                del present[place]
                if not present:
                    return []
                job.leave(place)
        more = job.step()
        tell([member.task.ref for member in present.values()], job.steps_done, job.total_steps)
    return list(zip(present.values(), job.finish(), strict=True))
