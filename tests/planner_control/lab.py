"""A service of three stages to control: easy numbers."""

from typing import Any

from planner.domain import RequestClass, Role, Shape, Workload
from planner.run.config import PolicyConfig, RoleBounds
from planner.run.decisions import Decision, SetCounts
from planner.run.observe import Observer, RoleState, Room
from planner.run.policy import Policy

ENCODE, DENOISE, DECODE = ROLES = tuple(Role("wan", stage) for stage in ("encode", "denoise", "decode"))
FOUR, ONE = Shape(1280, 720, 81, 4), Shape(1280, 720, 81, 1)
LOAD_S = {ENCODE: 20.0, DENOISE: 60.0, DECODE: 10.0}


def seconds(role: Role, accelerator: str, shape: Shape) -> float:
    del accelerator
    return {"encode": 0.5, "denoise": 15.75 * shape.steps, "decode": 13.0}[role.stage]


def expected(shape: Shape, per_min: float) -> Workload:
    return Workload((RequestClass("wan", shape, per_min / 60, None),))


class Lab:
    """A policy with its observer; counts follow decisions at once unless told otherwise."""

    def __init__(self, workers: int | None = 8, counts: tuple[int, ...] = (1, 5, 2), **config: Any) -> None:
        settings = {"roles": tuple(RoleBounds(role) for role in ROLES), "load_s": LOAD_S, **config}
        self.observer = Observer()
        self.config = PolicyConfig(**settings)
        self.policy = Policy(self.config, seconds)
        self.workers = workers
        self.counts = dict(zip(ROLES, counts, strict=True))
        self.coming = dict.fromkeys(ROLES, 0)
        self.queued = dict.fromkeys(ROLES, 0)
        self.busy = dict.fromkeys(ROLES, 1.0)
        self.pinned: dict[Role, int] = {}
        self.now = 0.0

    def requests(self, shape: Shape, count: int, over_s: float = 60.0) -> None:
        """Arrive and reach every stage."""
        for index in range(count):
            self.observer.arrived("wan", shape, self.now + index * over_s / count)
            for role in ROLES:
                self.observer.assigned(role, shape)

    def tick(self, step_s: float | None = None) -> tuple[Decision, ...]:
        self.now += self.config.interval_s if step_s is None else step_s
        states = tuple(
            RoleState(
                r,
                self.counts[r],
                self.counts[r],
                round(self.busy[r] * self.counts[r]),
                self.coming[r],
                0,
                self.queued[r],
            )
            for r in ROLES
        )
        rooms = (Room("H100", self.workers),) if self.workers is not None else ()
        found = self.policy.decide(self.observer.take(states, rooms, pinned=self.pinned), self.now)
        for decision in found:
            if isinstance(decision, SetCounts):
                self.counts = dict(decision.counts)
        return found

    def until(self, ticks: int) -> list[SetCounts]:
        """All changes of counts in so many ticks."""
        return [d for _ in range(ticks) for d in self.tick() if isinstance(d, SetCounts)]

    @property
    def ratio(self) -> tuple[int, ...]:
        return tuple(self.counts[role] for role in ROLES)
