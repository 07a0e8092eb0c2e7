"""What the policy wants done, as data. Every decision says why, with a code for machines and the numbers behind it."""

from typing import Literal

import msgspec

from planner.domain import Role, Shape, Workload
from planner.run.fleet import Bundle, NodeWish
from planner.run.seating import Seating

Mode = Literal["hybrid", "reactive", "predict", "static"]

ReasonCode = Literal[
    "start",  # the first tick
    "change",  # the mix of work changed: predicted anew
    "drift",  # the rate or the corrected service times moved on: predicted anew
    "pressure",  # a stage is busy and its queue is long
    "backlog",  # the present queue needs more than the rate alone
    "idle",  # a stage has had more than it needs for its whole dwell
    "room",  # nodes came or went
    "bounds",  # limits or a person's pin changed
    "placement",  # the dispatch policy wants a worker in another role
    "load",  # nodes: the load needs more, or less, than is there
    "budget",  # nodes: what was wished costs too much
]


class Reason(msgspec.Struct, frozen=True):
    """Why. ``numbers``: what was compared; names carry their units."""

    code: ReasonCode
    text: str
    numbers: dict[str, float] = {}


class SetCounts(msgspec.Struct, frozen=True, tag="set_counts"):
    """Have so many workers of each role, on the nodes that are there: drain, switch, start or end workers to get there.

    Level-triggered: all roles, not only those that change. ``by_gpu``: accelerator → role → workers where nodes differ,
    else empty; then it sums to ``counts``. ``bundles``: accelerator → roles → GPUs that hold a worker of each of these roles;
    they are counted in ``by_gpu``.
    """

    counts: dict[Role, int]
    why: Reason
    by_gpu: dict[str, dict[Role, int]] = {}
    bundles: dict[str, dict[Bundle, int]] = {}

    @property
    def seating(self) -> Seating:
        """The same, GPU by GPU."""
        alone = {name: dict(roles) for name, roles in self.by_gpu.items()}
        for name, bundles in self.bundles.items():
            for bundle, count in bundles.items():
                for role in bundle:
                    alone[name][role] -= count
        return Seating(alone, self.bundles)


class Measured(msgspec.Struct, frozen=True, array_like=True):
    """Seconds of a stage as they were measured here."""

    role: Role
    accelerator: str
    shape: Shape
    seconds: float


class Solve(msgspec.Struct, frozen=True, tag="solve"):
    """Ask the planner what to rent for this load, given what runs. The answer is met later, as ``Planned`` with this id.

    ``measured``: better than what its profiles say.
    """

    id: int
    workload: Workload
    why: Reason
    measured: tuple[Measured, ...] = ()


class WishNodes(msgspec.Struct, frozen=True, tag="wish_nodes"):
    """Have these nodes: launch what is missing, drain and release what is not wished for. Level-triggered."""

    wishes: tuple[NodeWish, ...]
    why: Reason


Decision = SetCounts | Solve | WishNodes
