"""What the ledger wants done, as data. One interpreter performs it for real, another inside the simulator."""

from typing import Any

import msgspec

from planner.domain import Batch, Role, TaskRef


class Attempt(msgspec.Struct, frozen=True):
    """Evidence of one failed try."""

    worker: str
    stage: str
    code: str
    message: str


class Assign(msgspec.Struct, frozen=True):
    """Send a task to a worker. ``payload`` and ``input`` are what the request came with or the last stage left."""

    worker: str
    ref: TaskRef
    model: str
    attempt: int
    payload: bytes
    input: Any
    resumed_at: int = (
        0  # not 0: ``input`` is a snapshot after so many steps, in which lie ``spent_s`` seconds of compute
    )
    spent_s: float = 0.0
    batch: Batch | None = None
    degree: int = 0  # GPUs of the worker's; 0: all


class LoadRole(msgspec.Struct, frozen=True):
    """A dispatch policy wants a role on a worker's GPU, and others there dropped (:class:`planner.run.orders.Load`); whether
    that may be is the control loop's to say."""

    worker: str
    role: Role
    drop: tuple[Role, ...]
    why: str


class CancelTask(msgspec.Struct, frozen=True):
    """Tell a worker to forget a task."""

    worker: str
    ref: TaskRef


class PauseTask(msgspec.Struct, frozen=True):
    """Tell a worker to stop a task at the next step boundary, and to keep a snapshot of it."""

    worker: str
    ref: TaskRef


class SpreadTask(msgspec.Struct, frozen=True):
    """Tell a worker to compute a task on so many of its GPUs."""

    worker: str
    ref: TaskRef
    degree: int


class Release(msgspec.Struct, frozen=True):
    """Tell a worker that an output is no longer needed."""

    worker: str
    key: str


class Publish(msgspec.Struct, frozen=True):
    """Make the result durable and visible, then report ``published`` or ``publish_failed``. Repeatable."""

    ref: TaskRef
    artifact: Any
    attempts: int


class Finish(msgspec.Struct, frozen=True):
    """Record that the request ended without a result. outcome: failed | cancelled. param: the field at fault."""

    request: str
    outcome: str
    code: str
    message: str
    attempts: int
    evidence: tuple[Attempt, ...] = ()
    param: str | None = None


class Condemn(msgspec.Struct, frozen=True):
    """The worker is beyond hope (no progress for too long): replace its process."""

    worker: str
    why: str


Effect = Assign | LoadRole | CancelTask | PauseTask | SpreadTask | Release | Publish | Finish | Condemn
