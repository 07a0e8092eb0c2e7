"""One queue, an order, and whoever is free: first come, first served; earliest deadline first; least laxity first.

The order of the last two is by deadline or by laxity among requests that can still be on time; those that no longer can come
after them, as they arrived (without that, one overload makes every later request late). ``batch``: where more wait than may
start, compatible ones go together if it makes none late. ``elastic``: GPUs that nobody else waits for are shared out.
``preempt``: a request that would be late for waiting takes the place of the one with most time to spare.
"""

from collections.abc import Callable, Sequence

from planner.run.orders import DispatchConfig, Instance, Job, Order, Pause, Running, Start, Times, View
from planner.run.policies.estimates import Estimates, best, companions

Key = Callable[[Job, float], float]
"""(job, seconds to spare) → lower goes first."""

MANY = float("inf")


def by_deadline(job: Job, _: float) -> float:
    """EDF."""
    return MANY if job.deadline_s is None else job.deadline_s


def by_laxity(_: Job, spare_s: float) -> float:
    """LLF."""
    return spare_s


class QueuePolicy:
    """``key`` None: in the order of arrival."""

    def __init__(self, config: DispatchConfig, times: Times, key: Key | None) -> None:
        self._config, self._key = config, key
        self._reckon = Estimates(times)

    def decide(self, view: View, now: float) -> list[Order]:
        """Starts for as many as can start; pauses for those that cannot wait."""
        free = {one.worker: one for one in view.instances if one.credit > 0 and not one.draining}
        models = {one.accelerator: one for one in view.instances}
        if not view.pending or not models:
            return []
        waiting = self._ordered(view.pending, next(iter(models.values())), now)
        orders: list[Order] = []
        started: set[str] = set()
        stuck: list[Job] = []
        for job in waiting:
            if job.request in started:
                continue
            at = best(free.values(), job)
            if at is None:
                stuck.append(job)
                continue
            left = [one for one in waiting if one.request not in started]
            members = self._batch(job, left, at, len(free), now)
            peers = self._peers(at, free, len(left) - len(members), job)
            degree = 1 + len(peers) if peers else max(at.degrees)
            orders.append(Start(tuple(one.request for one in members), at.worker, degree, peers))
            started.update(one.request for one in members)
            for worker in (at.worker, *peers):
                del free[worker]
            if not free:
                stuck += [one for one in waiting if one.request not in started and one not in stuck]
                break
        return orders + (self._pauses(stuck, view, now) if self._config.preempt and self._key else [])

    def _ordered(self, pending: Sequence[Job], at: Instance, now: float) -> list[Job]:
        if self._key is None:
            return sorted(pending, key=lambda job: (-job.priority, job.seq))
        places: dict[str, tuple[float, ...]] = {}
        for job in pending:
            spare = self._spare_s(job, at, now)
            late = spare < 0
            places[job.request] = (-job.priority, late, 0.0 if late else self._key(job, spare), job.seq)
        return sorted(pending, key=lambda job: places[job.request])

    def _spare_s(self, job: Job, at: Instance, now: float, batch: int = 1) -> float:
        if job.deadline_s is None:
            return MANY
        return job.deadline_s - now - self._reckon.rest_s(job, at, max(at.degrees), batch)

    def _batch(self, job: Job, waiting: Sequence[Job], at: Instance, free: int, now: float) -> list[Job]:
        """As many as may go together; alone where there is room for all."""
        if not self._config.batch or len(waiting) <= free:
            return [job]
        members = companions(job, waiting, self._config.max_batch)
        while len(members) > 1:
            spare = [self._spare_s(one, at, now, len(members)) for one in members]
            alone = [self._spare_s(one, at, now) for one in members]
            fits = self._room(job, at, len(members))
            if fits and all(together >= 0 or before < 0 for together, before in zip(spare, alone, strict=True)):
                break
            members.pop()
        return members

    def _room(self, job: Job, at: Instance, batch: int) -> bool:
        times = self._reckon.times
        held = sum(times.weights_gib(role) for role in at.residents)
        return not at.memory_gib or held + times.active_gib(job.role, job.shape, batch) <= at.memory_gib

    def _peers(self, at: Instance, free: dict[str, Instance], others: int, job: Job) -> tuple[str, ...]:
        """GPUs of the node that nobody else waits for, up to a power of two."""
        if not self._config.elastic or not at.joins or job.steps == 1 or others:
            return ()
        near = [one.worker for one in free.values() if one.joins and one.node == at.node and job.role in one.residents]
        degree = 1
        while degree * 2 <= len(near):
            degree *= 2
        return tuple(worker for worker in near if worker != at.worker)[: degree - 1]

    def _pauses(self, stuck: Sequence[Job], view: View, now: float) -> list[Order]:
        """For each that is still to be on time and has to wait: the place of the one with most to spare, if it can spare it."""
        at = {one.worker: one for one in view.instances}
        victims: list[tuple[float, Running]] = []
        for task in view.running:
            if not task.pausing and all(job.pauses < self._config.max_pauses and job.left > 1 for job in task.jobs):
                spare = min(self._spare_s(job, at[task.worker], now) for job in task.jobs)
                victims.append((spare, task))
        victims.sort(key=lambda pair: -pair[0])
        orders: list[Order] = []
        for job in stuck:
            found = next((pair for pair in victims if job.role in at[pair[1].worker].residents), None)
            if found is None:
                continue
            spare, task = found
            mine = self._spare_s(job, at[task.worker], now)
            takes = self._reckon.rest_s(job, at[task.worker])
            other = (task.jobs[0].role, task.jobs[0].shape) != (job.role, job.shape)
            if other and 0 <= mine < spare - takes:
                orders.append(Pause(task.jobs[0].request, f"{job.request} cannot wait"))
                victims.remove(found)
        return orders
