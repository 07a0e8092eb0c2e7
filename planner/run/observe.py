"""What the policy sees: who works, who waits, what arrived and how long things took. Plain data, bounded.

The shell (the head's controller, or the simulator) tells an :class:`Observer` of events as they happen, and once an
interval takes an :class:`Observation` from it, adding the counts of that moment. Nothing in it grows with the number of
workers or requests.
"""

import math
from collections import deque
from typing import Final, Literal

import msgspec

from planner.domain import Offer, Role, Shape
from planner.plan.result import Infeasible, Plan
from planner.run.fleet import NodeWish

MOST_EVENTS: Final = 2048  # of each kind between two observations; beyond that the oldest are dropped, and counted

LapseKind = Literal["load", "drain", "launch"]


class RoleState(msgspec.Struct, frozen=True):
    """Workers and work of one role, at this moment.

    ``ready``: take tasks; ``computing``: of those, busy now. ``coming``: load this role's weights, start, or drain in order
    to become it. ``draining``: had this role and take nothing new. ``queued``: requests that wait for the role, not yet
    with a worker. ``running``: with one. ``wanted``: what the last SetCounts (or a person's pin) asked for.
    """

    role: Role
    wanted: int
    ready: int
    computing: int
    coming: int = 0
    draining: int = 0
    queued: int = 0
    running: int = 0


class Room(msgspec.Struct, frozen=True):
    """Workers that the nodes of one accelerator can hold: ``up`` on nodes that are there, ``coming`` on nodes to come."""

    accelerator: str
    up: int
    coming: int = 0


class Arrival(msgspec.Struct, frozen=True, array_like=True):
    """A request was accepted. Monotonic seconds."""

    at_s: float
    model: str
    shape: Shape


class Assigned(msgspec.Struct, frozen=True, array_like=True):
    """A task was given to a worker of ``role`` (not yet started: workers prefetch). This order is what a stage will work on."""

    role: Role
    shape: Shape


class Completion(msgspec.Struct, frozen=True, array_like=True):
    """``count`` computations of a stage of one shape: the mean of the logarithms of their seconds.

    ``first``: workers' first tasks in this role, which compile and warm caches.
    """

    role: Role
    accelerator: str
    shape: Shape
    log_s: float
    count: int = 1
    first: bool = False


class Finished(msgspec.Struct, frozen=True, array_like=True):
    """A request has its result. ``latency_s``: from acceptance."""

    at_s: float
    model: str
    shape: Shape
    latency_s: float


class Lapse(msgspec.Struct, frozen=True, array_like=True):
    """A measured delay. load: weights of ``role``; drain: from the order until nothing is held; launch: a node of ``offer``,
    from the call until its agent's Hello. ``warm``: the weights lay in host memory."""

    kind: LapseKind
    seconds: float
    role: Role | None = None
    accelerator: str = ""
    offer: str = ""
    warm: bool = False


class Planned(msgspec.Struct, frozen=True):
    """The answer to the policy's Solve with the same ``id``. ``error``: the solver failed, in words.

    ``wishes``: the plan's machines and where else they may come from (empty: only where the plan has them). ``share``: of
    the work asked for that the plan carries; below 1 where the budget, or the market, has no more.
    """

    id: int
    plan: Plan | Infeasible | None = None
    error: str = ""
    wishes: tuple[NodeWish, ...] = ()
    share: float = 1.0


class NodeCount(msgspec.Struct, frozen=True):
    """Nodes of one wish, by its key: ``up`` have reported, ``coming`` are being launched, ``leaving`` drain.

    ``offers``: of the wish, ``offer`` and what may stand in for it.
    """

    key: str
    offer: Offer
    wished: int
    up: int
    coming: int = 0
    leaving: int = 0
    offers: tuple[Offer, ...] = ()

    def wish(self, count: int) -> NodeWish:
        """The same machines, so many."""
        return NodeWish(self.key, self.offers or (self.offer,), count)


class Observation(msgspec.Struct, frozen=True):
    """Everything a tick decides on. Events are those since the last one; ``dropped``: arrivals too many to keep.

    ``pinned``: counts that a person has set. ``usd_total``: spent so far.
    """

    roles: tuple[RoleState, ...]
    rooms: tuple[Room, ...] = ()
    arrivals: tuple[Arrival, ...] = ()
    assigned: tuple[Assigned, ...] = ()
    completions: tuple[Completion, ...] = ()
    finished: tuple[Finished, ...] = ()
    lapses: tuple[Lapse, ...] = ()
    nodes: tuple[NodeCount, ...] = ()
    pinned: dict[Role, int] = {}
    planned: Planned | None = None
    usd_per_hour: float = 0.0
    usd_total: float = 0.0
    dropped: int = 0


class Observer:
    """Collects events between two observations. Bounded."""

    def __init__(self) -> None:
        self._arrivals: deque[Arrival] = deque(maxlen=MOST_EVENTS)
        self._assigned: deque[Assigned] = deque(maxlen=MOST_EVENTS)
        self._completions: dict[tuple[Role, str, Shape, bool], list[float]] = {}  # sum of logarithms, and how many
        self._finished: deque[Finished] = deque(maxlen=MOST_EVENTS)
        self._lapses: deque[Lapse] = deque(maxlen=MOST_EVENTS)
        self._planned: Planned | None = None
        self._arrived = 0

    def arrived(self, model: str, shape: Shape, now: float) -> None:
        """A request was accepted."""
        self._arrived += 1
        self._arrivals.append(Arrival(now, model, shape))

    def assigned(self, role: Role, shape: Shape) -> None:
        """The dispatcher has given a task to a worker."""
        self._assigned.append(Assigned(role, shape))

    def completed(self, role: Role, accelerator: str, shape: Shape, seconds: float, *, first: bool = False) -> None:
        """A worker has computed a stage."""
        key = (role, accelerator, shape, first)
        sums = self._completions.get(key)
        if seconds <= 0:
            return
        if sums is not None:
            sums[0] += math.log(seconds)
            sums[1] += 1
        elif len(self._completions) < MOST_EVENTS:
            self._completions[key] = [math.log(seconds), 1]

    def finished(self, model: str, shape: Shape, latency_s: float, now: float) -> None:
        """A request has its result."""
        self._finished.append(Finished(now, model, shape, latency_s))

    def lapse(self, lapse: Lapse) -> None:
        """Something was measured that moving capacity waits for."""
        self._lapses.append(lapse)

    def planned(self, planned: Planned) -> None:
        """The solver has answered."""
        self._planned = planned

    def take(
        self,
        roles: tuple[RoleState, ...],
        rooms: tuple[Room, ...] = (),
        nodes: tuple[NodeCount, ...] = (),
        pinned: dict[Role, int] | None = None,
        spend: tuple[float, float] = (0.0, 0.0),
    ) -> Observation:
        """What has been seen since the last call, with the counts of now. ``spend``: dollars an hour, dollars so far."""
        seen = Observation(
            roles=roles,
            rooms=rooms,
            arrivals=tuple(self._arrivals),
            assigned=tuple(self._assigned),
            completions=tuple(
                Completion(role, name, shape, total / count, int(count), first)
                for (role, name, shape, first), (total, count) in self._completions.items()
            ),
            finished=tuple(self._finished),
            lapses=tuple(self._lapses),
            nodes=nodes,
            pinned=pinned or {},
            planned=self._planned,
            usd_per_hour=spend[0],
            usd_total=spend[1],
            dropped=self._arrived - len(self._arrivals),
        )
        for events in (self._arrivals, self._assigned, self._completions, self._finished, self._lapses):
            events.clear()
        self._planned, self._arrived = None, 0
        return seen
