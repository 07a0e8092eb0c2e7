"""Over how many of its worker's own GPUs a task is spread: as many as its steps are quickest on, which is found out by trying.

Nobody else can have these GPUs meanwhile, so unlike with GPUs that are lent nothing is weighed: only the time of a step counts.
More GPUs are not always quicker: each step exchanges what small shapes compute in less time than that takes. The largest
number is tried first, then the others, for some steps each, by the first requests of a shape.
"""

from collections.abc import Iterable, Sequence
from typing import Final

from msgspec.structs import replace

from planner.run.orders import Instance, Job, Order, Pause, Running, SetDegree, Start, Times, View

KEEP: Final = 0.1  # of a step: what a change must save


class OwnDegrees:
    """``elastic``: whether anything but all GPUs is tried."""

    def __init__(self, times: Times, *, elastic: bool) -> None:
        self._times, self._elastic = times, elastic

    def apply(self, orders: Sequence[Order], view: View) -> list[Order]:
        """The orders with degrees for starts on workers with several GPUs of their own, and changes for what runs on them."""
        wide = {one.worker: one for one in view.instances if not one.joins and max(one.degrees) > 1}
        if not wide:
            return list(orders)
        jobs = {job.request: job for job in view.pending}
        found = [self._started(order, wide, jobs) if isinstance(order, Start) else order for order in orders]
        touched = {order.request for order in orders if isinstance(order, Pause | SetDegree)}
        return found + self._changes((task for task in view.running if task.worker in wide), wide, touched)

    def best(self, job: Job, at: Instance, present: int = 0) -> int:
        """``present``: the degree it has; it stays until it is measured, and while no other is much quicker."""
        if not self._elastic:
            return max(at.degrees)
        steps = {gpus: self._times.own_step_s(job.role, at.accelerator, job.shape, gpus) for gpus in at.degrees}
        untried = [gpus for gpus, step_s in steps.items() if step_s is None]
        if untried:
            return present if present in untried else max(untried)
        known = {gpus: step_s for gpus, step_s in steps.items() if step_s is not None}
        quickest = min(known, key=lambda gpus: known[gpus])
        return present if present in known and known[quickest] > (1 - KEEP) * known[present] else quickest

    def _started(self, order: Start, wide: dict[str, Instance], jobs: dict[str, Job]) -> Start:
        at = wide.get(order.worker)
        if at is None:
            return order
        one = len(order.requests) == 1
        return replace(order, degree=self.best(jobs[order.requests[0]], at) if one else max(at.degrees))

    def _changes(self, tasks: Iterable[Running], wide: dict[str, Instance], touched: set[str]) -> list[Order]:
        found: list[Order] = []
        for task in tasks:
            job = task.jobs[0]
            if len(task.jobs) > 1 or task.pausing or job.left < 2 or job.request in touched:
                continue
            degree = self.best(job, wide[task.worker], task.degree)
            if degree != task.degree:
                found.append(SetDegree(job.request, degree))
        return found
