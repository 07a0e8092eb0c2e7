"""What a dispatch policy sees and what it may order, as data. The ledger makes the View and carries out the Orders.

First come, first served needs none of this (:mod:`planner.run.dispatch`): it hands out tasks without looking at more than the
head of a queue. The other policies are shown everything each time something changed: a request came, a stage ended, a task
was paused, a worker came or went, or a time came that the policy had asked for (:class:`AskAgain`).

Seconds are monotonic. A *step* is one denoising step; a stage without steps counts as one step. Orders that no longer fit
when they are carried out (the request was cancelled, the worker is gone, the credit is used) are dropped without harm: the
policy is asked again and sees how things are.
"""

from typing import Final, Literal, Protocol

import msgspec

from planner.domain import Role, Shape
from planner.run.seating import Together

Kind = Literal["fifo", "edf", "least_laxity", "genserve", "trident"]
KINDS: Final[tuple[Kind, ...]] = ("fifo", "edf", "least_laxity", "genserve", "trident")


class DispatchConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``policy.dispatch`` of a service: which policy, and each of its mechanisms by itself (for comparing with and without).

    ``max_pauses``: a request that was paused so often is never paused again. ``max_batch``: requests in one batch at most.
    """

    kind: Kind = "fifo"
    preempt: bool = True
    elastic: bool = True
    batch: bool = True
    placement: bool = True
    max_pauses: int = 16
    max_batch: int = 8

    @property
    def places(self) -> bool:
        """Whether the policy orders roles moved (:class:`Load`)."""
        return self.kind == "trident" and self.placement


# --- what there is -----------------------------------------------------------------------------------------------


class Job(msgspec.Struct, frozen=True):
    """A request and the stage it needs next, or is at.

    ``steps``: of this stage in all; ``left``: those not computed yet (less than ``steps``: it was paused, and a snapshot holds
    what is computed). ``deadline_s``: when the whole request should be finished, by its class's objective or its own wish;
    past it, it is late, and still to be served. ``after``: stages that come after this one. ``held_by``: the worker that has
    its snapshot, else its input; "" when the head has it. ``batch_key``: requests of one role with equal keys may share a
    batch; "" shares with nobody. ``avoid``: workers on which it failed.
    """

    request: str
    role: Role
    shape: Shape
    arrived_s: float
    seq: int
    steps: int = 1
    left: int = 1
    priority: int = 0
    deadline_s: float | None = None
    pauses: int = 0
    after: tuple[str, ...] = ()
    held_by: str = ""
    batch_key: str = ""
    avoid: frozenset[str] = frozenset()

    @property
    def begun(self) -> bool:
        """Whether some of its steps are computed."""
        return self.left < self.steps


class Running(msgspec.Struct, frozen=True):
    """A task out with a worker. ``jobs``: the members of its batch, whose ``left`` counts the step in progress.

    ``step_since_s``: when the present step began. ``peers``: workers that lend their GPUs to it, besides ``worker``.
    ``pausing``: an order to pause or to change the degree is on its way; it takes effect at the end of the step.
    """

    worker: str
    jobs: tuple[Job, ...]
    step_since_s: float
    degree: int = 1
    peers: tuple[str, ...] = ()
    pausing: bool = False

    @property
    def role(self) -> Role:
        """What is computed."""
        return self.jobs[0].role


class Card(msgspec.Struct, frozen=True):
    """A GPU whose workers are processes of one role each, as a Load sees it; or what stands in for one.

    ``roles``: of all its workers; ``coming``: of them, those that load. ``open_to``: roles that a Load may bring here now, and
    ``loose``: roles that it may drop, as far as bounds, pins and the workers' tasks go. ``together``: what the GPU may hold at
    a time; None: one role.
    """

    name: str
    roles: frozenset[Role]
    coming: frozenset[Role] = frozenset()
    open_to: frozenset[Role] = frozenset()
    loose: frozenset[Role] = frozenset()
    together: Together | None = None

    def holds(self, roles: frozenset[Role]) -> bool:
        """Whether all of them may be there."""
        return len(roles) < 2 if self.together is None else self.together.holds(roles)


class Instance(msgspec.Struct, frozen=True):
    """A worker. ``credit``: tasks it would start at once (0: it computes, drains or loads).

    ``residents``: roles whose weights are on its GPUs; ``loading``: a role on its way there. ``degrees``: over how many of its
    OWN GPUs it can spread one task. ``joins``: whether its GPU may be lent to a colleague on the same ``node``
    (:attr:`Start.peers`). ``memory_gib``: of one GPU, usable. ``card``: the GPU that it is on, which others may share; None: it
    has its GPU to itself and holds as many roles as the memory does.
    """

    worker: str
    node: str
    accelerator: str
    residents: frozenset[Role]
    credit: int
    degrees: tuple[int, ...] = (1,)
    joins: bool = False
    memory_gib: float = 0.0
    loading: Role | None = None
    draining: bool = False
    card: Card | None = None

    @property
    def place(self) -> str:
        """Names what it loads onto."""
        return self.worker if self.card is None else self.card.name

    @property
    def held(self) -> frozenset[Role]:
        """Roles of all who are there."""
        return self.residents if self.card is None else self.card.roles


class View(msgspec.Struct, frozen=True):
    """Everything, at one moment. ``pending`` in the order of arrival."""

    pending: tuple[Job, ...]
    running: tuple[Running, ...]
    instances: tuple[Instance, ...]


class Times(Protocol):
    """Predictions, in seconds; None: nothing is known (policies then take work as it comes).

    Where workers have several GPUs of their own, ``degree`` 1 is such a worker as a whole.
    """

    def step_s(self, role: Role, accelerator: str, shape: Shape, batch: int = 1, degree: int = 1) -> float | None:
        """One step of a batch of so many on so many GPUs; of a stage without steps, all of it."""
        ...

    def stage_s(self, role: Role, accelerator: str, shape: Shape, degree: int = 1) -> float | None:
        """A whole stage of one request, all its steps."""
        ...

    def own_step_s(self, role: Role, accelerator: str, shape: Shape, degree: int) -> float | None:
        """One step on so many of a worker's own GPUs (:attr:`Instance.degrees`); None: not measured yet."""
        ...

    def resume_s(self, job: Job, worker: str) -> float:
        """What it costs to have the job's snapshot or input at the worker before its next step."""
        ...

    def load_s(self, role: Role, accelerator: str) -> float:
        """Moving a role's weights onto a GPU."""
        ...

    def weights_gib(self, role: Role) -> float:
        """What a role's weights take on a GPU."""
        ...

    def active_gib(self, role: Role, shape: Shape, batch: int = 1, degree: int = 1) -> float:
        """What computing takes beside all weights that reside there."""
        ...


# --- what may be ordered -----------------------------------------------------------------------------------------


class Start(msgspec.Struct, frozen=True):
    """Give the requests' present stage to the worker as one batch, or resume the one whose snapshot there is.

    ``degree``: GPUs it is spread over: the worker's own, or with ``peers`` one of each of the workers named.
    """

    requests: tuple[str, ...]
    worker: str
    degree: int = 1
    peers: tuple[str, ...] = ()


class Pause(msgspec.Struct, frozen=True):
    """Stop at the next step boundary, keep a snapshot, queue the request again. Of a batch: the whole batch."""

    request: str
    why: str


class SetDegree(msgspec.Struct, frozen=True):
    """From the next step boundary on, spread the request's task over so many GPUs. ``peers`` as in Start."""

    request: str
    degree: int
    peers: tuple[str, ...] = ()


class Load(msgspec.Struct, frozen=True):
    """Bring a role's weights to an idle worker's GPU, after dropping others there to make room.

    Where a worker has one role (:class:`Card`): with nothing to drop another worker is started there, else the one whose role
    is dropped takes the new one. If more are dropped the others end first, and the order is to be repeated.
    """

    worker: str
    role: Role
    drop: tuple[Role, ...] = ()
    why: str = ""


class AskAgain(msgspec.Struct, frozen=True):
    """Show the policy a new View then, should nothing change before."""

    at_s: float


Order = Start | Pause | SetDegree | Load | AskAgain


class DispatchPolicy(Protocol):
    """Decides what to start, pause, spread and load. It may remember what it saw; it has no clock, no I/O, no randomness."""

    def decide(self, view: View, now: float) -> list[Order]:
        """Orders, to be carried out in this order."""
        ...
