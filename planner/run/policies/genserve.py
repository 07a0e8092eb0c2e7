"""Step-level co-scheduling of short and long requests: pauses, degrees and batches by one dynamic programme.

After GENSERVE (arXiv 2604.04335), which pauses videos at step boundaries so that images are on time, spreads requests over more
or fewer GPUs, batches, and decides all of it together by dynamic programming over predicted step times. What is published says
no more than that; how it is done here is ours:

1. *Admission.* Whom to be on time for: by deadline, as long as the GPU-seconds fit before each deadline; where they do not, the
   request with the most left to do is given up (Moore, Management Science 15, 1968, on a machine as fast as seven tenths of all
   GPUs: what wider groups waste, and GPUs that no group is made of, cannot be promised to anybody; docs/decisions/0077).
2. *Value.* The chance to be on time after the next moments, for each number of GPUs a request may have during them: its
   tightness is the least time that it still takes over the time that it has.
3. *Choice.* The multiple-choice knapsack (:mod:`planner.run.policies.knapsack`) over all GPUs: each running request keeps,
   changes or loses its GPUs, each waiting one (or batch) gets some or none.

A request is paused ``max_pauses`` times at most; after that it keeps a GPU until it is done.
"""

import heapq
from typing import Final

from planner.run.orders import DispatchConfig, Job, Order, Times, View
from planner.run.policies.floor import Floor
from planner.run.policies.joint import Joint, by_key
from planner.run.policies.outlook import Prospect

LEAST_S: Final = 1.0  # looked ahead at least, and at most
MOST_S: Final = 4.0
GIVEN_UP: Final = 0.02  # what progress of those that will be late is worth, compared with being on time
KEEP: Final = 0.004  # a change must be worth more than this
RELIED_ON: Final = 0.7  # of all GPU-seconds, the share that promises are made of
WIDEST: Final = 128  # waiting requests that the choice is about, at most


class GenServe(Joint):
    """Pauses, degrees and batches for as many as possible to be on time."""

    def __init__(self, config: DispatchConfig, times: Times) -> None:
        super().__init__(config, times, KEEP)

    def decide(self, view: View, now: float) -> list[Order]:
        """Pauses and changes of degree first, so that what they free is there; then starts."""
        self.outlook.begin()
        floor = Floor(view, self.outlook.degrees(view), now)
        if not floor.gpus or not (view.pending or view.running):
            return []
        ends = (self.outlook.end_s(task, floor) - now for task in view.running)
        ahead_s = min(max(min(ends, default=MOST_S), LEAST_S), MOST_S)
        admitted = self._admitted(view, floor, now)

        def worth(job: Job, prospect: Prospect, gpus: int) -> float:
            if job.request in admitted:
                return prospect.chance(gpus, ahead_s) * (1 + max(job.priority, 0))
            return GIVEN_UP * prospect.progress(gpus, ahead_s)

        return self.settle(view, floor, self._waiting(view, floor, admitted), worth, now + ahead_s)

    def _admitted(self, view: View, floor: Floor, now: float) -> set[str]:
        rows: list[tuple[float, float, str]] = []
        for job in (*view.pending, *(job for task in view.running for job in task.jobs)):
            work = self.outlook.least_work_s(job, floor)
            if work is not None and job.deadline_s is not None:
                rows.append((job.deadline_s, work, job.request))
        return admit(rows, RELIED_ON * floor.gpus, now)

    def _waiting(self, view: View, floor: Floor, admitted: set[str]) -> list[list[Job]]:
        """Jobs that wait, those of one batch key together. Of those that will be late no more than there are GPUs."""
        into = [job for job in view.pending if job.request in admitted]
        into.sort(key=lambda job: (job.deadline_s, job.seq))
        late = [job for job in view.pending if job.request not in admitted]
        late.sort(key=lambda job: (-job.priority, not job.begun, job.seq))
        return [[job] for job in late[: floor.gpus]] + by_key(into[:WIDEST], batch=self.config.batch)


def admit(rows: list[tuple[float, float, str]], gpus: float, now: float) -> set[str]:
    """Whom to be on time for. ``rows``: (deadline, GPU-seconds, name)."""
    kept: list[tuple[float, str]] = []  # a heap of (-work, name)
    total = 0.0
    for deadline_s, work, name in sorted(rows):
        heapq.heappush(kept, (-work, name))
        total += work
        while kept and total > gpus * (deadline_s - now):
            total += heapq.heappop(kept)[0]
    return {name for _, name in kept}
