"""What the worker's state machine (:mod:`stages.core`) wants done, as data."""

import msgspec

from planner.domain import Role, TaskRef
from stages.protocol import ModelSource, Reach, Task, WorkerMessage


class Send(msgspec.Struct, frozen=True):
    """To the head."""

    message: WorkerMessage


class Load(msgspec.Struct, frozen=True):
    """Load the role's weights; answer with ``loaded`` or ``load_failed``."""

    role: Role
    source: ModelSource


class Unload(msgspec.Struct, frozen=True):
    """Free the model."""


class Fetch(msgspec.Struct, frozen=True):
    """Bring the task's input here; answer with ``fetched`` or ``fetch_failed``."""

    task: Task


class Compute(msgspec.Struct, frozen=True):
    """Run the task once those before it are over; answer with ``stepped``…, ``computed`` or ``compute_failed``.

    ``others``: together with these, if they fit together. Each is answered for by itself.
    """

    task: Task
    others: tuple[Task, ...] = ()


class Stop(msgspec.Struct, frozen=True):
    """Stop computing the task at the next step boundary, or do not begin it; answer with ``stopped``."""

    ref: TaskRef


class Suspend(msgspec.Struct, frozen=True):
    """Stop computing the task at the next step boundary and keep a snapshot of it.

    Answer with ``paused``, or ``untouched`` before its first step, or ``pause_refused``; none when it is over by then.
    """

    ref: TaskRef


class SetDegree(msgspec.Struct, frozen=True):
    """From the next step boundary on, compute the task on so many GPUs."""

    ref: TaskRef
    degree: int


class Publish(msgspec.Struct, frozen=True):
    """Offer (or upload) the computed result; answer with ``published`` or ``publish_failed``."""

    ref: TaskRef


class Forget(msgspec.Struct, frozen=True):
    """Drop whatever is kept under the key: input, result, offer."""

    key: str


class AllowPeers(msgspec.Struct, frozen=True):
    """Replace the list of keys that may read from our data server."""

    keys: tuple[str, ...]


class SetReach(msgspec.Struct, frozen=True):
    """Offer outputs by the routes that this calls for."""

    reach: Reach


Instruction = (
    Send | Load | Unload | Fetch | Compute | Stop | Suspend | SetDegree | Publish | Forget | AllowPeers | SetReach
)
