"""What the engine and the desk tell of as it happens. Whoever wants to know overrides these; this one lets it pass."""

from disagctl.roster import WorkerState
from planner.domain import Role, Shape, TaskRef
from planner.run.book import Request
from stages import protocol as wire


class Watcher:
    """Nobody: see :mod:`disagctl.load_watch` for the control loop's."""

    def arrived(self, request: Request, now: float) -> None:
        """A request was accepted."""

    def due_s(self, model: str, shape: Shape | None, accepted_s: float) -> float | None:
        """When a request accepted then should be finished; None: nothing is promised."""
        return None

    def assigned(self, request: Request, role: Role) -> None:
        """A task was given to a worker."""

    def started(self, worker: WorkerState, request: Request, ref: TaskRef, now: float) -> None:
        """A worker has begun to compute."""

    def completed(self, worker: WorkerState, request: Request, done: wire.Done) -> None:
        """A stage of a request was computed."""

    def idle(self, worker: str) -> None:
        """What a worker computed failed, or went with it."""

    def finished(self, request: Request, latency_s: float, now: float) -> None:
        """A request has its durable result."""

    def became(self, worker: WorkerState, ready: wire.RoleReady, drain_s: float | None) -> None:
        """A worker has loaded its role; ``drain_s``: how long it finished its work before, when it switched."""
