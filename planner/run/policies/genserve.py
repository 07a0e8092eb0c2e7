"""Step-level co-scheduling of short and long requests: pauses, degrees and batches by one dynamic programme.

After GENSERVE (arXiv 2604.04335), which pauses videos at step boundaries so that images are on time, spreads requests over more
or fewer GPUs, batches, and decides all of it together by dynamic programming over predicted step times. What is published says
no more than that; how it is done here is ours:

1. *Admission.* Whom to be on time for: by deadline, as long as the GPU-seconds fit before each deadline; where they do not, the
   request with the most left to do is given up (Moore, Management Science 15, 1968, on a machine as fast as all GPUs).
2. *Value.* The chance to be on time after the next moments, for each number of GPUs a request may have during them: its
   tightness is the least time that it still takes over the time that it has.
3. *Choice.* The multiple-choice knapsack (:mod:`planner.run.policies.knapsack`) over all GPUs: each running request keeps, changes
   or loses its GPUs, each waiting one (or batch) gets some or none.

A request is paused ``max_pauses`` times at most; after that it keeps a GPU until it is done.
"""

from collections.abc import Sequence
from typing import Final

import msgspec

from planner.run.orders import AskAgain, DispatchConfig, Job, Order, Pause, Running, SetDegree, Start, Times, View
from planner.run.policies.floor import Floor
from planner.run.policies.knapsack import Option, choose
from planner.run.policies.outlook import Outlook, Prospect

LEAST_S: Final = 0.25  # looked ahead at least, and at most
MOST_S: Final = 2.0
GIVEN_UP: Final = 0.02  # what progress of those that will be late is worth, compared with being on time
KEEP: Final = 0.004  # a change must be worth more than this
WIDEST: Final = 128  # waiting requests that the choice is about, at most


class _Choice(msgspec.Struct):
    """One group of the knapsack: a running task, or requests that wait. ``batches``: by tag, which start together."""

    options: list[Option]
    task: Running | None = None
    batches: list[list[list[Job]]] = []


class GenServe:
    """Remembers only what it ordered and has not seen come true."""

    def __init__(self, config: DispatchConfig, times: Times) -> None:
        self._config = config
        self._outlook = Outlook(times, elastic=config.elastic)
        self._coming: dict[str, int] = {}  # request whose task is to change → GPUs it will have

    def decide(self, view: View, now: float) -> list[Order]:
        """Pauses and changes of degree first, so that what they free is there; then starts."""
        floor = Floor(view, self._outlook.degrees(view))
        if not floor.gpus or not (view.pending or view.running):
            return []
        self._coming = {
            name: self._coming.get(name, 0) for task in view.running if task.pausing for name in [task.jobs[0].request]
        }
        ahead_s = self._ahead_s(view, floor, now)
        admitted = self._admit(view, floor, now)
        choices = self._running(view, floor, admitted, ahead_s, now)
        fixed = sum(min(one.size for one in choice.options) for choice in choices)
        waiting = self._waiting(view, floor, admitted, ahead_s, now)
        return self._settle(
            choices, waiting, floor, max(floor.gpus - floor.held_back(self._coming) - fixed, 0), now, ahead_s
        )

    def _ahead_s(self, view: View, floor: Floor, now: float) -> float:
        """Until something ends by itself."""
        ends = (self._outlook.end_s(task, floor.accelerator, now) - now for task in view.running)
        return min(max(min(ends, default=MOST_S), LEAST_S), MOST_S)

    # --- admission --------------------------------------------------------------------------------------------

    def _admit(self, view: View, floor: Floor, now: float) -> set[str]:
        """Those to be on time for."""
        rows: list[tuple[float, float, str]] = []
        for job in (*view.pending, *(job for task in view.running for job in task.jobs)):
            if job.deadline_s is None:
                continue
            work = self._outlook.least_work_s(job, floor, now)
            if work is not None:
                rows.append((job.deadline_s, work, job.request))
        rows.sort()
        kept: list[tuple[float, str]] = []
        total = 0.0
        for deadline_s, work, name in rows:
            kept.append((work, name))
            total += work
            while total > floor.gpus * (deadline_s - now) and kept:
                largest = max(kept)
                kept.remove(largest)
                total -= largest[0]
        return {name for _, name in kept}

    # --- options ----------------------------------------------------------------------------------------------

    def _worth(self, prospect: Prospect, gpus: int, ahead_s: float, *, admitted: bool) -> float:
        if admitted:
            return prospect.chance(gpus, ahead_s)
        return GIVEN_UP * prospect.progress(gpus, ahead_s)

    def _running(self, view: View, floor: Floor, admitted: set[str], ahead_s: float, now: float) -> list[_Choice]:
        found = []
        for task in view.running:
            if task.pausing:
                continue
            found.append(_Choice(self._kept(task, floor, admitted, ahead_s, now), task))
        return found

    def _kept(self, task: Running, floor: Floor, admitted: set[str], ahead_s: float, now: float) -> list[Option]:
        """What may become of a running task; the present degree first. A size above 0 in all: it cannot be paused."""
        job, degree = task.jobs[0], floor.size(task)
        movable = job.steps > 1 and job.left > 1 and floor.joined(task)
        pausable = (
            self._config.preempt and job.left > 1 and all(one.pauses < self._config.max_pauses for one in task.jobs)
        )
        degrees = {degree}
        if self._config.elastic and movable:
            degrees |= set(floor.degrees)
        prospects = [
            (self._outlook.prospect(one, floor, now, batch=len(task.jobs)), one.request in admitted)
            for one in task.jobs
        ]

        def worth(gpus: int) -> float:
            return sum(self._worth(prospect, gpus, ahead_s, admitted=into) for prospect, into in prospects)

        options = [Option(gpus, worth(gpus) + (KEEP if gpus == degree else 0.0)) for gpus in sorted(degrees)]
        if pausable:
            options.insert(0, Option(0, worth(0) - KEEP))
        return options

    def _waiting(self, view: View, floor: Floor, admitted: set[str], ahead_s: float, now: float) -> list[_Choice]:
        """Jobs that wait, those of one batch key together."""
        groups: dict[str, list[Job]] = {}
        for job in sorted(view.pending, key=lambda one: (one.request not in admitted, one.deadline_s or now, one.seq))[
            :WIDEST
        ]:
            together = job.batch_key if self._config.batch and job.request in admitted else ""
            groups.setdefault(together or job.request, []).append(job)
        return [self._group(jobs, floor, admitted, ahead_s, now) for jobs in groups.values()]

    def _group(self, jobs: list[Job], floor: Floor, admitted: set[str], ahead_s: float, now: float) -> _Choice:
        prospects = [self._outlook.prospect(job, floor, now) for job in jobs]
        idle = [
            self._worth(prospect, 0, ahead_s, admitted=job.request in admitted)
            for prospect, job in zip(prospects, jobs, strict=True)
        ]
        choice = _Choice([Option(0, sum(idle))], None, [[]])
        if len(jobs) == 1:
            job, prospect = jobs[0], prospects[0]
            for gpus in floor.degrees if self._config.elastic and job.steps > 1 else (1,):
                value = self._worth(prospect, gpus, ahead_s, admitted=job.request in admitted)
                self._add(choice, gpus, value + 1e-6 * job.priority, [jobs])
            return choice
        alone = [prospect.chance(1, ahead_s) for prospect in prospects]
        for count in range(1, len(jobs) + 1):  # so many, each by itself
            self._add(choice, count, sum(alone[:count]) + sum(idle[count:]), [[job] for job in jobs[:count]])
        for count in range(2, min(len(jobs), self._config.max_batch) + 1):  # so many as one batch
            if not self._outlook.fits(jobs[0], floor, count):
                break
            shared = [self._outlook.prospect(job, floor, now, batch=count).chance(1, ahead_s) for job in jobs[:count]]
            self._add(choice, 1, sum(shared) + sum(idle[count:]), [jobs[:count]])
        return choice

    def _add(self, choice: _Choice, gpus: int, value: float, batches: list[list[Job]]) -> None:
        choice.batches.append(batches)
        choice.options.append(Option(gpus, value, len(choice.batches) - 1))

    # --- orders -----------------------------------------------------------------------------------------------

    def _settle(
        self,
        running: Sequence[_Choice],
        waiting: Sequence[_Choice],
        floor: Floor,
        capacity: int,
        now: float,
        ahead_s: float,
    ) -> list[Order]:
        groups = []
        for choice in running:
            least = min(one.size for one in choice.options)
            groups.append([Option(one.size - least, one.value, one.size) for one in choice.options])
        groups += [choice.options for choice in waiting]
        picked = choose(groups, capacity)
        orders: list[Order] = []
        grown: list[tuple[Running, int]] = []
        for choice, option in zip(running, picked[: len(running)], strict=True):
            task = choice.task
            if task is None or option.tag == floor.size(task):
                continue
            name = task.jobs[0].request
            if option.tag == 0:
                self._coming[name] = 0
                orders.append(Pause(name, "others would be late"))
            elif option.tag < floor.size(task):
                self._coming[name] = option.tag
                orders.append(SetDegree(name, option.tag, task.peers[: option.tag - 1]))
            else:
                grown.append((task, option.tag))
        starts: list[tuple[float, int, list[Job]]] = []
        for choice, option in zip(waiting, picked[len(running) :], strict=True):
            gain = option.value - choice.options[0].value
            for members in choice.batches[option.tag]:
                starts.append((gain / max(option.size, 1), option.size // len(choice.batches[option.tag]), members))
        starts.sort(key=lambda row: (-row[0], row[2][0].seq))
        short = False
        for _, gpus, members in starts:
            workers = floor.take(members[0], gpus)
            short = short or len(workers) < gpus
            if workers:
                orders.append(Start(tuple(job.request for job in members), workers[0], len(workers), workers[1:]))
        for task, gpus in grown if not short else ():
            peers = floor.grow(task, gpus)
            if len(peers) + 1 > floor.size(task):
                orders.append(SetDegree(task.jobs[0].request, len(peers) + 1, peers))
                self._coming[task.jobs[0].request] = len(peers) + 1
        if waiting:
            orders.append(AskAgain(now + ahead_s))
        return orders
