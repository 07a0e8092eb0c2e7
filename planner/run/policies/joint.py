"""Degrees, pauses and batches of everything at once: options for what runs and what waits, the best choice of them, and orders.

What an option is worth is the policy's: see :mod:`planner.run.policies.genserve` and :mod:`planner.run.policies.trident`.
"""

from collections.abc import Callable, Mapping, Sequence

import msgspec

from planner.domain import Role
from planner.run.orders import AskAgain, DispatchConfig, Job, Order, Pause, Running, SetDegree, Start, Times, View
from planner.run.policies.floor import Floor
from planner.run.policies.knapsack import Option, choose
from planner.run.policies.outlook import Outlook, Prospect

Worth = Callable[[Job, Prospect, int], float]
"""(job, prospect, GPUs that it has for the next moments) → value; values add up."""


class Choice(msgspec.Struct):
    """One group of the knapsack: a running task, or requests that wait. ``batches``: by tag, which start together."""

    options: list[Option]
    task: Running | None = None
    batches: list[list[list[Job]]] = []
    jobs: Sequence[Job] = ()


class Joint:
    """Remembers only what it ordered and has not seen come true. ``keep``: what a change must be worth at least."""

    def __init__(self, config: DispatchConfig, times: Times, keep: float) -> None:
        self.config, self.keep = config, keep
        self.outlook = Outlook(times, elastic=config.elastic)
        self._coming: dict[str, int] = {}  # request whose task is to change → GPUs it will have

    def settle(
        self, view: View, floor: Floor, waiting: Sequence[list[Job]], worth: Worth, again_s: float
    ) -> list[Order]:
        """The best choice as orders. ``waiting``: jobs by batch key; ``again_s``: when to ask again if GPUs are yet to come.

        GPUs that share no role with others are chosen for by themselves: one stage's workers take nothing from another's.
        """
        changing = (task.jobs[0].request for task in view.running if task.pausing)
        self._coming = {name: self._coming.get(name, 0) for name in changing}
        orders: list[Order] = []
        for part in floor.parts():
            tasks = [task for task in view.running if task.worker in part.workers]
            groups = [jobs for jobs in waiting if jobs[0].role in part.roles]
            orders += self._part(tasks, groups, floor, part.gpus, worth, again_s)
        return orders

    def _part(
        self,
        tasks: Sequence[Running],
        waiting: Sequence[list[Job]],
        floor: Floor,
        gpus: int,
        worth: Worth,
        again_s: float,
    ) -> list[Order]:
        running = [Choice(self._kept(task, floor, worth), task) for task in tasks if not task.pausing]
        choices = [
            self._alone(jobs[0], floor, worth) if len(jobs) == 1 else self._together(jobs, floor, worth)
            for jobs in waiting
        ]
        fixed = sum(min(one.size for one in choice.options) for choice in running)
        held_back = sum(self._coming.get(task.jobs[0].request, floor.size(task)) for task in tasks if task.pausing)
        return self._orders(running, choices, floor, max(gpus - held_back - fixed, 0), again_s)

    # --- options ----------------------------------------------------------------------------------------------

    def _kept(self, task: Running, floor: Floor, worth: Worth) -> list[Option]:
        """What may become of a running task. A size above 0 in all: it cannot be paused."""
        job, degree = task.jobs[0], floor.size(task)
        pausable = self.config.preempt and all(one.pauses < self.config.max_pauses for one in task.jobs)
        degrees = {degree}
        if self.config.elastic and job.steps > 1 and job.left > 1 and floor.joined(task):
            degrees |= set(floor.degrees)
        prospects = [self.outlook.prospect(one, floor, batch=len(task.jobs)) for one in task.jobs]

        def value(gpus: int) -> float:
            return sum(worth(one, found, gpus) for one, found in zip(task.jobs, prospects, strict=True))

        options = [Option(gpus, value(gpus) + (self.keep if gpus == degree else 0.0)) for gpus in sorted(degrees)]
        if pausable and job.left > 1:
            options.insert(0, Option(0, value(0) - self.keep))
        return options

    def _alone(self, job: Job, floor: Floor, worth: Worth) -> Choice:
        prospect = self.outlook.prospect(job, floor)
        choice = Choice([Option(0, worth(job, prospect, 0))], None, [[]], [job])
        for gpus in floor.degrees if job.steps > 1 else (1,):
            self._add(choice, gpus, worth(job, prospect, gpus), [[job]])
        return choice

    def _together(self, jobs: list[Job], floor: Floor, worth: Worth) -> Choice:
        """Jobs that could share a batch: some each by itself, on more GPUs or fewer, or the first so many as one batch."""
        prospects = [self.outlook.prospect(job, floor) for job in jobs]
        idle = [worth(job, prospect, 0) for job, prospect in zip(jobs, prospects, strict=True)]
        choice = Choice([Option(0, sum(idle))], None, [[]], jobs)
        for gpus in floor.degrees if jobs[0].steps > 1 else (1,):
            total = sum(idle)
            for count in range(1, min(len(jobs), floor.gpus // gpus) + 1):
                total += worth(jobs[count - 1], prospects[count - 1], gpus) - idle[count - 1]
                self._add(choice, gpus * count, total, [[job] for job in jobs[:count]])
        for count in range(2, min(len(jobs), self.config.max_batch) + 1):
            if not self.outlook.fits(jobs[0], floor, count):
                break
            shared = (worth(job, self.outlook.prospect(job, floor, batch=count), 1) for job in jobs[:count])
            self._add(choice, 1, sum(shared) + sum(idle[count:]), [jobs[:count]])
        return choice

    def _add(self, choice: Choice, gpus: int, value: float, batches: list[list[Job]]) -> None:
        choice.batches.append(batches)
        choice.options.append(Option(gpus, value, len(choice.batches) - 1))

    # --- orders -----------------------------------------------------------------------------------------------

    def _orders(
        self, running: Sequence[Choice], waiting: Sequence[Choice], floor: Floor, capacity: int, again_s: float
    ) -> list[Order]:
        """Carry out the best choice: what shrinks first, then starts, then what grows into what is left."""
        groups = []
        for choice in running:
            least = min(one.size for one in choice.options)
            groups.append([Option(one.size - least, one.value, one.size) for one in choice.options])
        picked = choose([*groups, *(choice.options for choice in waiting)], capacity)
        orders, short = _starts(waiting, picked[len(running) :], floor)
        freed: set[Role] = set()
        kept: list[Running] = []
        grown: list[tuple[Running, int]] = []
        for choice, option in zip(running, picked[: len(running)], strict=True):
            task = choice.task
            if task is None or option.tag == floor.size(task):
                kept += [task] if task is not None else []
            elif option.tag > floor.size(task):
                grown.append((task, option.tag))
            else:
                orders += self._shrink(task, option.tag, floor, short, freed)
        for role in [role for role in short if role not in freed and not floor.everywhere(role)]:
            orders += self._yielded(short[role], kept, floor, freed)
        for task, gpus in grown:
            peers = floor.grow(task, gpus, short.keys())
            if len(peers) + 1 > floor.size(task):
                orders.append(SetDegree(task.jobs[0].request, len(peers) + 1, peers))
                self._coming[task.jobs[0].request] = len(peers) + 1
        if not floor.uniform:
            orders += _leftovers(waiting, orders, floor, short)
        return [*orders, AskAgain(again_s)] if short else orders

    def _shrink(
        self, task: Running, gpus: int, floor: Floor, short: Mapping[Role, Job], freed: set[Role]
    ) -> Sequence[Order]:
        """Give back GPUs, those first that somebody waits for. Nothing when none of them would be of use to who waits."""
        peers = sorted(task.peers, key=lambda worker: bool(floor.roles(worker) & short.keys()))
        stay = peers[: gpus - 1] if gpus else []
        away = set().union(*(floor.roles(worker) for worker in (task.worker, *task.peers) if worker not in stay))
        if gpus:
            away = set().union(*(floor.roles(worker) for worker in peers[gpus - 1 :]))
        if short and not away & short.keys():
            return []
        freed |= away
        name = task.jobs[0].request
        self._coming[name] = gpus
        return [SetDegree(name, gpus, tuple(stay)) if gpus else Pause(name, "others would be late")]

    def _yielded(self, job: Job, tasks: Sequence[Running], floor: Floor, freed: set[Role]) -> Sequence[Order]:
        """Weights are not everywhere: who computes where the job could, and has more to do, makes room there."""
        mine = self.outlook.prospect(job, floor).work_s
        for task in sorted(tasks, key=lambda one: -self.outlook.prospect(one.jobs[0], floor).work_s):
            name, first = task.jobs[0].request, task.jobs[0]
            if name in self._coming or first.left < 2 or self.outlook.prospect(first, floor).work_s <= mine:
                continue
            stay = [worker for worker in task.peers if job.role not in floor.roles(worker)]
            if len(stay) < len(task.peers) and self.config.elastic:
                degree = 1 << ((len(stay) + 1).bit_length() - 1)
                order: Order = SetDegree(name, degree, tuple(stay[: degree - 1]))
            elif job.role in floor.roles(task.worker) and self.config.preempt and first.pauses < self.config.max_pauses:
                degree, order = 0, Pause(name, f"{job.request} waits for its GPU")
            else:
                continue
            self._coming[name] = degree
            freed.add(job.role)
            return [order]
        return []


def _starts(waiting: Sequence[Choice], picked: Sequence[Option], floor: Floor) -> tuple[list[Order], dict[Role, Job]]:
    """What can start, and what of each role has to wait for GPUs."""
    orders: list[Order] = []
    short: dict[Role, Job] = {}
    for gpus, members in _in_order(waiting, picked):
        workers = floor.take(members[0], gpus)
        if len(workers) < gpus:
            short.setdefault(members[0].role, members[0])
        if workers:
            orders.append(Start(tuple(job.request for job in members), workers[0], len(workers), workers[1:]))
    return orders, short


def _leftovers(
    waiting: Sequence[Choice], orders: Sequence[Order], floor: Floor, short: Mapping[Role, Job]
) -> list[Order]:
    """GPUs that none of those chosen can use go to whoever can."""
    begun = {name for order in orders if isinstance(order, Start) for name in order.requests}
    found: list[Order] = []
    floor.reserve(short.keys())
    for job in (job for choice in waiting for job in choice.jobs if job.request not in begun):
        if not floor.idle:
            break
        found += [Start((job.request,), worker) for worker in floor.take(job, 1)]
    return found


def _in_order(waiting: Sequence[Choice], picked: Sequence[Option]) -> list[tuple[int, list[Job]]]:
    """(GPUs, batch) of all that is to start, what is worth most for a GPU first."""
    rows: list[tuple[float, int, list[Job]]] = []
    for choice, option in zip(waiting, picked, strict=True):
        batches = choice.batches[option.tag]
        worth = (option.value - choice.options[0].value) / max(option.size, 1)
        rows += [(worth, option.size // len(batches), members) for members in batches]
    rows.sort(key=lambda row: (-row[0], row[2][0].seq))
    return [(gpus, members) for _, gpus, members in rows]


def by_key(jobs: Sequence[Job], *, batch: bool) -> list[list[Job]]:
    """In order, those that may share a batch together."""
    groups: dict[str, list[Job]] = {}
    for job in jobs:
        groups.setdefault((job.batch_key if batch else "") or job.request, []).append(job)
    return list(groups.values())
