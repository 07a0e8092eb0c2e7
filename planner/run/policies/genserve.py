"""Step-level co-scheduling of short and long requests: pauses, degrees and batches by one dynamic programme.

After GENSERVE (arXiv 2604.04335), which pauses videos at step boundaries so that images are on time, spreads requests over more
or fewer GPUs, batches, and decides all of it together by dynamic programming over predicted step times. What is published says
no more than that; how it is done here is ours:

1. *Admission.* Whom to be on time for: by deadline, as long as the GPU-seconds fit before each deadline; where they do not, the
   request with the most left to do is given up (Moore, Management Science 15, 1968, on a machine as fast as all GPUs).
2. *Value.* The chance to be on time after the next moments, for each number of GPUs a request may have during them: its
   tightness is the least time that it still takes over the time that it has.
3. *Choice.* The multiple-choice knapsack (:mod:`planner.run.policies.knapsack`) over all GPUs: each running request keeps,
   changes or loses its GPUs, each waiting one (or batch) gets some or none.

A request is paused ``max_pauses`` times at most; after that it keeps a GPU until it is done.
"""

import heapq
from collections.abc import Sequence
from typing import Final

import msgspec

from planner.run.orders import AskAgain, DispatchConfig, Job, Order, Pause, Running, SetDegree, Start, Times, View
from planner.run.policies.floor import Floor
from planner.run.policies.knapsack import Option, choose
from planner.run.policies.outlook import Outlook, Prospect

LEAST_S: Final = 1.0  # looked ahead at least, and at most
MOST_S: Final = 2.0
GIVEN_UP: Final = 0.02  # what progress of those that will be late is worth, compared with being on time
KEEP: Final = 0.004  # a change must be worth more than this
WIDEST: Final = 128  # waiting requests that the choice is about, at most


class _Choice(msgspec.Struct):
    """One group of the knapsack: a running task, or requests that wait. ``batches``: by tag, which start together."""

    options: list[Option]
    task: Running | None = None
    batches: list[list[list[Job]]] = []


class _Moment(msgspec.Struct, frozen=True):
    """What all options of a decision are valued with."""

    floor: Floor
    now: float
    ahead_s: float
    admitted: set[str]

    def worth(self, job: Job, prospect: Prospect, gpus: int) -> float:
        """The chance to be on time, or the little that progress of the late is worth."""
        if job.request in self.admitted:
            return prospect.chance(gpus, self.ahead_s) * (1 + max(job.priority, 0))
        return GIVEN_UP * prospect.progress(gpus, self.ahead_s)


class GenServe:
    """Remembers only what it ordered and has not seen come true."""

    def __init__(self, config: DispatchConfig, times: Times) -> None:
        self._config = config
        self._outlook = Outlook(times, elastic=config.elastic)
        self._coming: dict[str, int] = {}  # request whose task is to change → GPUs it will have

    def decide(self, view: View, now: float) -> list[Order]:
        """Pauses and changes of degree first, so that what they free is there; then starts."""
        self._outlook.begin()
        floor = Floor(view, self._outlook.degrees(view))
        if not floor.gpus or not (view.pending or view.running):
            return []
        changing = (task.jobs[0].request for task in view.running if task.pausing)
        self._coming = {name: self._coming.get(name, 0) for name in changing}
        moment = self._moment(view, floor, now)
        running = [_Choice(self._kept(task, moment), task) for task in view.running if not task.pausing]
        fixed = sum(min(one.size for one in choice.options) for choice in running)
        capacity = max(floor.gpus - floor.held_back(self._coming) - fixed, 0)
        return self._settle(running, self._waiting(view, moment), floor, capacity, now + moment.ahead_s)

    def _moment(self, view: View, floor: Floor, now: float) -> _Moment:
        """Whom to be on time for, and until when to look ahead: something ends by itself."""
        ends = (self._outlook.end_s(task, floor, now) - now for task in view.running)
        ahead_s = min(max(min(ends, default=MOST_S), LEAST_S), MOST_S)
        rows: list[tuple[float, float, str]] = []
        for job in (*view.pending, *(job for task in view.running for job in task.jobs)):
            work = self._outlook.least_work_s(job, floor, now)
            if work is not None and job.deadline_s is not None:
                rows.append((job.deadline_s, work, job.request))
        return _Moment(floor, now, ahead_s, admit(rows, floor.gpus, now))

    # --- options ----------------------------------------------------------------------------------------------

    def _kept(self, task: Running, moment: _Moment) -> list[Option]:
        """What may become of a running task. A size above 0 in all: it cannot be paused."""
        floor, job, degree = moment.floor, task.jobs[0], moment.floor.size(task)
        pausable = self._config.preempt and all(one.pauses < self._config.max_pauses for one in task.jobs)
        degrees = {degree}
        if self._config.elastic and job.steps > 1 and job.left > 1 and floor.joined(task):
            degrees |= set(floor.degrees)
        prospects = [self._outlook.prospect(one, floor, moment.now, batch=len(task.jobs)) for one in task.jobs]

        def worth(gpus: int) -> float:
            return sum(moment.worth(one, found, gpus) for one, found in zip(task.jobs, prospects, strict=True))

        options = [Option(gpus, worth(gpus) + (KEEP if gpus == degree else 0.0)) for gpus in sorted(degrees)]
        if pausable and job.left > 1:
            options.insert(0, Option(0, worth(0) - KEEP))
        return options

    def _waiting(self, view: View, moment: _Moment) -> list[_Choice]:
        """Jobs that wait, those of one batch key together. Of those that will be late no more than there are GPUs."""
        into = [job for job in view.pending if job.request in moment.admitted]
        into.sort(key=lambda job: (job.deadline_s, job.seq))
        late = [job for job in view.pending if job.request not in moment.admitted]
        late.sort(key=lambda job: (-job.priority, not job.begun, job.seq))
        groups: dict[str, list[Job]] = {}
        for job in into[:WIDEST]:
            groups.setdefault((job.batch_key if self._config.batch else "") or job.request, []).append(job)
        choices = [self._alone(job, moment) for job in late[: moment.floor.gpus]]
        return choices + [
            self._alone(jobs[0], moment) if len(jobs) == 1 else self._together(jobs, moment) for jobs in groups.values()
        ]

    def _alone(self, job: Job, moment: _Moment) -> _Choice:
        prospect = self._outlook.prospect(job, moment.floor, moment.now)
        choice = _Choice([Option(0, moment.worth(job, prospect, 0))], None, [[]])
        for gpus in moment.floor.degrees if job.steps > 1 else (1,):
            self._add(choice, gpus, moment.worth(job, prospect, gpus), [[job]])
        return choice

    def _together(self, jobs: list[Job], moment: _Moment) -> _Choice:
        """Jobs that could share a batch: some each by itself, on more GPUs or fewer, or the first so many as one batch."""
        floor = moment.floor
        prospects = [self._outlook.prospect(job, floor, moment.now) for job in jobs]
        idle = [moment.worth(job, prospect, 0) for job, prospect in zip(jobs, prospects, strict=True)]
        choice = _Choice([Option(0, sum(idle))], None, [[]])
        for gpus in floor.degrees if jobs[0].steps > 1 else (1,):
            worth = sum(idle)
            for count in range(1, min(len(jobs), floor.gpus // gpus) + 1):
                worth += moment.worth(jobs[count - 1], prospects[count - 1], gpus) - idle[count - 1]
                self._add(choice, gpus * count, worth, [[job] for job in jobs[:count]])
        for count in range(2, min(len(jobs), self._config.max_batch) + 1):
            if not self._outlook.fits(jobs[0], floor, count):
                break
            shared = (
                moment.worth(job, self._outlook.prospect(job, floor, moment.now, batch=count), 1)
                for job in jobs[:count]
            )
            self._add(choice, 1, sum(shared) + sum(idle[count:]), [jobs[:count]])
        return choice

    def _add(self, choice: _Choice, gpus: int, value: float, batches: list[list[Job]]) -> None:
        choice.batches.append(batches)
        choice.options.append(Option(gpus, value, len(choice.batches) - 1))

    # --- orders -----------------------------------------------------------------------------------------------

    def _settle(
        self, running: Sequence[_Choice], waiting: Sequence[_Choice], floor: Floor, capacity: int, until_s: float
    ) -> list[Order]:
        """Carry out the best choice: what shrinks first, then starts, then what grows into what is left."""
        groups = []
        for choice in running:
            least = min(one.size for one in choice.options)
            groups.append([Option(one.size - least, one.value, one.size) for one in choice.options])
        picked = choose([*groups, *(choice.options for choice in waiting)], capacity)
        orders: list[Order] = []
        grown: list[tuple[Running, int]] = []
        for choice, option in zip(running, picked[: len(running)], strict=True):
            if choice.task is not None and option.tag > floor.size(choice.task):
                grown.append((choice.task, option.tag))
            elif choice.task is not None and option.tag < floor.size(choice.task):
                orders.append(self._shrink(choice.task, option.tag))
        short = False
        for gpus, members in _in_order(waiting, picked[len(running) :]):
            workers = floor.take(members[0], gpus)
            short = short or len(workers) < gpus
            if workers:
                orders.append(Start(tuple(job.request for job in members), workers[0], len(workers), workers[1:]))
        if short:
            return [*orders, AskAgain(until_s)]
        for task, gpus in grown:
            peers = floor.grow(task, gpus)
            if len(peers) + 1 > floor.size(task):
                orders.append(SetDegree(task.jobs[0].request, len(peers) + 1, peers))
                self._coming[task.jobs[0].request] = len(peers) + 1
        return orders

    def _shrink(self, task: Running, gpus: int) -> Order:
        name = task.jobs[0].request
        self._coming[name] = gpus
        return SetDegree(name, gpus, task.peers[: gpus - 1]) if gpus else Pause(name, "others would be late")


def _in_order(waiting: Sequence[_Choice], picked: Sequence[Option]) -> list[tuple[int, list[Job]]]:
    """(GPUs, batch) of all that is to start, what is worth most for a GPU first."""
    rows: list[tuple[float, int, list[Job]]] = []
    for choice, option in zip(waiting, picked, strict=True):
        batches = choice.batches[option.tag]
        worth = (option.value - choice.options[0].value) / max(option.size, 1)
        rows += [(worth, option.size // len(batches), members) for members in batches]
    rows.sort(key=lambda row: (-row[0], row[2][0].seq))
    return [(gpus, members) for _, gpus, members in rows]


def admit(rows: list[tuple[float, float, str]], gpus: int, now: float) -> set[str]:
    """Whom to be on time for. ``rows``: (deadline, GPU-seconds, name)."""
    kept: list[tuple[float, str]] = []  # a heap of (-work, name)
    total = 0.0
    for deadline_s, work, name in sorted(rows):
        heapq.heappush(kept, (-work, name))
        total += work
        while kept and total > gpus * (deadline_s - now):
            total += heapq.heappop(kept)[0]
    return {name for _, name in kept}
