"""The GPUs of a View as a policy takes them: which are idle, which go together, and taking them one after another.

A worker with several GPUs that are not lent counts as one: nobody else can have some of them (:mod:`.own`).
"""

from collections.abc import Set as AbstractSet

import msgspec

from planner.domain import Role
from planner.run.orders import Instance, Job, Running, View


class Part(msgspec.Struct, frozen=True):
    """GPUs among which work can be moved about. ``gpus``: those that can be used."""

    workers: set[str]
    roles: set[Role]
    gpus: int


class Node(msgspec.Struct, frozen=True):
    """GPUs of a part that one task can be spread over. ``holders``: of those that can be used, how many have a role.

    ``idle``: of them, how many could start something at once.
    """

    name: str
    workers: set[str]
    gpus: int
    idle: int
    holders: dict[Role, int]


class Floor:
    """Consumed by :meth:`take` and :meth:`grow`: what they gave out is no longer idle."""

    def __init__(self, view: View, degrees: tuple[int, ...], now: float) -> None:
        able = [one for one in view.instances if not one.draining]
        self._instances: dict[str, Instance] = {one.worker: one for one in view.instances}
        self._idle: dict[str, Instance] = {one.worker: one for one in able if one.credit > 0}
        self._tasks = view.running
        self.gpus = sum(one.loading is None for one in able)
        self.degrees, self.now = degrees, now
        self.accelerator = able[0].accelerator if able else ""

    @property
    def idle(self) -> int:
        """Instances that could start something."""
        return len(self._idle)

    def left(self) -> list[Instance]:
        """Those that nobody took."""
        return list(self._idle.values())

    def instance(self, worker: str) -> Instance | None:
        """By its name."""
        return self._instances.get(worker)

    def roles(self, worker: str) -> frozenset[Role]:
        """What resides at a worker."""
        at = self._instances.get(worker)
        return at.residents if at is not None else frozenset()

    @property
    def uniform(self) -> bool:
        """Whether all have the same weights."""
        return len({one.residents for one in self._instances.values()}) == 1

    def everywhere(self, role: Role) -> bool:
        """Whether every GPU has the role's weights."""
        return all(role in one.residents for one in self._instances.values())

    def size(self, task: Running) -> int:
        """GPUs that a task holds: its own and its peers'."""
        return len(task.peers) + 1

    def joined(self, task: Running) -> bool:
        """Whether its degree may change by lending."""
        at = self._instances.get(task.worker)
        return at is not None and at.joins

    def parts(self) -> list[Part]:
        """GPUs that share roles, directly or by way of others, and what they can do together."""
        parts: list[Part] = []
        for worker, at in self._instances.items():
            gpus = int(not at.draining and at.loading is None)
            joined = Part({worker}, set(at.residents), gpus)
            for other in [part for part in parts if part.roles & at.residents]:
                parts.remove(other)
                joined = Part(joined.workers | other.workers, joined.roles | other.roles, joined.gpus + other.gpus)
            parts.append(joined)
        return parts

    def nodes(self, part: Part) -> list[Node]:
        """The part by nodes. GPUs that are not lent make one together: none of their tasks is ever spread over several."""
        lists: dict[str, list[Instance]] = {}
        for worker in part.workers:
            at = self._instances[worker]
            lists.setdefault(at.node if at.joins else "", []).append(at)
        found = []
        for name in sorted(lists):
            gpus, idle, holders = 0, 0, dict.fromkeys(part.roles, 0)
            for at in lists[name]:
                size = int(not at.draining and at.loading is None)
                gpus += size
                idle += size if at.worker in self._idle else 0
                for role in at.residents:
                    holders[role] += size
            found.append(Node(name, {at.worker for at in lists[name]}, gpus, idle, holders))
        return found

    def able(self, job: Job, among: AbstractSet[str] | None = None) -> list[Instance]:
        """Idle ones with the job's weights, best first: where its input is, then those that can do little else."""
        found = [
            one for one in self._idle.values() if job.role in one.residents and (among is None or one.worker in among)
        ]
        return sorted(
            found, key=lambda one: (one.worker in job.avoid, one.worker != job.held_by, len(one.residents), one.worker)
        )

    def most(self, job: Job, gpus: int, among: AbstractSet[str]) -> int:
        """How many :meth:`take` would give."""
        return len(self._found(job, gpus, among))

    def take(self, job: Job, gpus: int, among: AbstractSet[str] | None = None) -> tuple[str, ...]:
        """Up to so many idle GPUs of one node (``among``: all of one), a power of two; the first is the task's worker. Empty:
        there are none."""
        taken = self._found(job, gpus, among)
        for worker in taken:
            del self._idle[worker]
        return taken

    def _found(self, job: Job, gpus: int, among: AbstractSet[str] | None) -> tuple[str, ...]:
        able = self.able(job, among)
        if not able:
            return ()
        count = 1
        if able[0].joins and gpus > 1:
            able = [one for one in able if one.node == able[0].node]
            count = min(gpus, 1 << (len(able).bit_length() - 1))
        return tuple(one.worker for one in able[:count])

    def reserve(self, wanted: AbstractSet[Role]) -> None:
        """Take out the idle ones that have any of these roles: they are kept for somebody."""
        self._idle = {name: one for name, one in self._idle.items() if not one.residents & wanted}

    def grow(self, task: Running, gpus: int, wanted: AbstractSet[Role]) -> tuple[str, ...]:
        """The task's peers, were it to have up to so many GPUs of its node; its present ones when no more are idle.

        GPUs with a role that others still want (``wanted``) are left to them.
        """
        node, have = self._instances[task.worker].node, self.size(task)
        near = [
            one.worker
            for one in self._idle.values()
            if one.joins and one.node == node and task.role in one.residents and not one.residents & wanted
        ]
        while gpus > have and gpus - have > len(near):
            gpus //= 2
        if gpus <= have:
            return task.peers
        more = near[: gpus - have]
        for worker in more:
            del self._idle[worker]
        return (*task.peers, *more)
