"""The machines of the simulated world: nodes, and workers with one compute thread and one that fetches ahead."""

from typing import Final

import msgspec

from planner.domain import Role, TaskRef
from planner.run.fleet import NodeWish, SlotPlan

FETCHING: Final = 0
READY: Final = 1


class Task(msgspec.Struct):
    """A task a worker has. ``request``: index into the trace."""

    ref: TaskRef
    request: int
    state: int = READY


class SimWorker(msgspec.Struct):
    """``role`` is what it has, or loads; ``becomes``: what it drains in order to load. ``tasks`` wait for their turn."""

    id: str
    plan: SlotPlan
    accelerator: str
    role: Role
    ready: bool = False
    becomes: Role | None = None
    leaving: bool = False
    loading: int = 0  # grows with every load that begins: older ones no longer count
    ordered_s: float = 0.0
    fresh: bool = True  # has computed nothing in this role
    tasks: list[Task] = []
    fetching: bool = False
    computing: Task | None = None
    gone: bool = False

    @property
    def serves(self) -> bool:
        """Takes tasks."""
        return self.ready and self.becomes is None and not self.leaving


class SimNode(msgspec.Struct):
    """A machine. ``up``: its agent reports. It is paid from the call that launches it."""

    id: str
    wish: NodeWish
    launched_s: float
    up: bool = False
    leaving: bool = False
    gone_s: float | None = None

    @property
    def usd_per_hour(self) -> float:
        """While it is there."""
        return self.wish.offers[0].usd_per_hour
