"""Degrees, pauses and batches of everything at once: options for what runs and what waits, the best choice of them, and orders.

What an option is worth is the policy's: see :mod:`planner.run.policies.genserve` and :mod:`planner.run.policies.trident`.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import msgspec

from planner.domain import Role
from planner.run.orders import AskAgain, DispatchConfig, Job, Order, Pause, Running, SetDegree, Start, Times, View
from planner.run.policies.bins import Bin, Choice, put_down
from planner.run.policies.floor import Floor, Node, Part
from planner.run.policies.knapsack import Option
from planner.run.policies.outlook import Outlook, Prospect
from planner.run.policies.own import OwnDegrees

WAIT: Final = 1.0  # a step on fewer GPUs may take, of the time until there are more
MOVE: Final = 0.2  # what a task must gain at another node, of what it is worth where it is

Worth = Callable[[Job, Prospect, int], float]
"""(job, prospect, GPUs that it has for the next moments) → value; values add up."""


class Round(msgspec.Struct):
    """One decision. ``short``: who waits for GPUs, one of each role."""

    floor: Floor
    worth: Worth
    short: dict[Role, Job] = {}


class Joint:
    """Remembers only what it ordered and has not seen come true. ``keep``: what a change must be worth at least; ``patient``:
    whether waiting for more GPUs is weighed against starting on those that are idle."""

    def __init__(self, config: DispatchConfig, times: Times, keep: float, *, patient: bool = False) -> None:
        self.config, self.keep, self.patient = config, keep, patient
        self.outlook = Outlook(times, elastic=config.elastic)
        self.own = OwnDegrees(times, elastic=config.elastic)
        self._coming: dict[str, int] = {}  # request whose task is to change → GPUs it will have

    def settle(
        self, view: View, floor: Floor, waiting: Sequence[list[Job]], worth: Worth, again_s: float
    ) -> list[Order]:
        """The best choice as orders. ``waiting``: jobs by batch key, in the order in which they choose a node.

        ``again_s``: when to ask again if somebody waits for GPUs.

        GPUs that share no role with others are chosen for by themselves: one stage's workers take nothing from another's.
        """
        changing = (task.jobs[0].request for task in view.running if task.pausing)
        self._coming = {name: self._coming.get(name, 0) for name in changing}
        now = Round(floor, worth)
        orders: list[Order] = []
        for part in floor.parts():
            tasks = [task for task in view.running if task.worker in part.workers]
            groups = [jobs for jobs in waiting if jobs[0].role in part.roles]
            orders += self._part(tasks, groups, part, now)
        orders = self.own.apply(orders, view)
        return [*orders, AskAgain(again_s)] if now.short else orders

    def _part(self, tasks: Sequence[Running], waiting: Sequence[list[Job]], part: Part, now: Round) -> list[Order]:
        """A knapsack a node. Who waits goes, one after another, to the node where starting it adds most to what is there."""
        floor = now.floor
        bins = [self._bin(node, tasks, floor, now.worth) for node in floor.nodes(part)]
        stuck = [choice for jobs in waiting for choice in self._assign(jobs, bins, floor, now.worth)]
        by_bin = [self._orders(one, now) for one in bins]
        orders = [order for found in by_bin for order in found]
        if len(bins) > 1 and self.config.preempt and not now.short:
            settled = [one for one, found in zip(bins, by_bin, strict=True) if not found]
            orders += self._move(settled, bins, now)
        if not floor.uniform:
            everyone = [*(choice for one in bins for choice in one.waiting), *stuck]
            orders += _leftovers(everyone, orders, floor, now.short)
        return orders

    def _bin(self, node: Node, tasks: Sequence[Running], floor: Floor, worth: Worth) -> Bin:
        running, coming = [], []
        for task in tasks:
            if task.worker not in node.workers:
                continue
            has, prospects = (
                floor.size(task),
                [self.outlook.prospect(one, floor, len(task.jobs), task) for one in task.jobs],
            )
            boundary_s = prospects[0].boundary_s
            if task.pausing:
                coming.append((has, self._coming.get(task.jobs[0].request, has), boundary_s))
            else:
                options = self._kept(task, floor, node, worth, prospects)
                running.append(Choice(options, task, has=has, boundary_s=boundary_s))
        return Bin(node, coming, running)

    def _assign(self, jobs: list[Job], bins: Sequence[Bin], floor: Floor, worth: Worth) -> list[Choice]:
        """Put jobs of one batch key down at nodes, the first that fit together at each; what none has use for comes back."""
        while jobs:
            choice = self._waits(jobs, floor, worth)
            found = put_down(choice, bins)
            if found is None:
                return [choice]
            at, option = found
            count = sum(map(len, choice.batches[option.tag]))
            at.add(choice if count == len(jobs) else self._waits(jobs[:count], floor, worth))
            jobs = jobs[count:]
        return []

    def _move(self, settled: Sequence[Bin], bins: Sequence[Bin], now: Round) -> list[Order]:
        """Nobody waits, and a task would do better on another node: it is paused, to go on there."""
        best: tuple[float, Running] | None = None
        for one in settled:
            picked = one.chosen()
            for index, choice in enumerate(one.running):
                task = choice.task
                if task is None or not choice.movable or len(task.jobs) > 1:
                    continue
                moved = self._alone(task.jobs[0], now.floor, now.worth)
                there = put_down(moved, [other for other in bins if other is not one])
                if there is None:
                    continue
                gain = choice.options[0].value + there[0].offer(moved)[0] + one.without(index)
                if gain > MOVE * picked[index].value and (best is None or gain > best[0]):
                    best = (gain, task)
        if best is None:
            return []
        name = best[1].jobs[0].request
        self._coming[name] = 0
        return [Pause(name, "it goes on at another node")]

    # --- options ----------------------------------------------------------------------------------------------

    def _kept(
        self, task: Running, floor: Floor, node: Node, worth: Worth, prospects: Sequence[Prospect]
    ) -> list[Option]:
        """What may become of a running task. A size above 0 in all: it cannot be paused."""
        job, degree = task.jobs[0], floor.size(task)
        pausable = self.config.preempt and all(one.pauses < self.config.max_pauses for one in task.jobs)
        degrees = {degree}
        if self.config.elastic and job.steps > 1 and job.left > 1 and floor.joined(task):
            degrees |= {gpus for gpus in floor.degrees if gpus <= node.holders.get(task.role, 0)}

        def value(gpus: int) -> float:
            return sum(worth(one, found, gpus) for one, found in zip(task.jobs, prospects, strict=True))

        options = [Option(gpus, value(gpus) + (self.keep if gpus == degree else 0.0)) for gpus in sorted(degrees)]
        if pausable and job.left > 1:
            options.insert(0, Option(0, value(0) - self.keep))
        return options

    def _waits(self, jobs: list[Job], floor: Floor, worth: Worth) -> Choice:
        return self._alone(jobs[0], floor, worth) if len(jobs) == 1 else self._together(jobs, floor, worth)

    def _alone(self, job: Job, floor: Floor, worth: Worth) -> Choice:
        prospect = self.outlook.prospect(job, floor)
        choice = self._none([job], worth(job, prospect, 0), prospect)
        for gpus in floor.degrees if job.steps > 1 else (1,):
            choice.add(gpus, worth(job, prospect, gpus), [[job]], prospect.takes_s(gpus))
        return choice

    def _together(self, jobs: list[Job], floor: Floor, worth: Worth) -> Choice:
        """Jobs that could share a batch: some each by itself, on more GPUs or fewer, or the first so many as one batch."""
        prospects = [self.outlook.prospect(job, floor) for job in jobs]
        idle = [worth(job, prospect, 0) for job, prospect in zip(jobs, prospects, strict=True)]
        choice = self._none(jobs, sum(idle), prospects[0])
        for gpus in floor.degrees if jobs[0].steps > 1 else (1,):
            total = sum(idle)
            for count in range(1, min(len(jobs), self.config.max_batch, floor.gpus // gpus) + 1):
                total += worth(jobs[count - 1], prospects[count - 1], gpus) - idle[count - 1]
                choice.add(gpus * count, total, [[job] for job in jobs[:count]], prospects[0].takes_s(gpus))
        for count in range(2, min(len(jobs), self.config.max_batch) + 1):
            if not self.outlook.fits(jobs[0], floor, count):
                break
            shared = [self.outlook.prospect(job, floor, batch=count) for job in jobs[:count]]
            value = sum(worth(job, prospect, 1) for job, prospect in zip(jobs, shared, strict=False))
            choice.add(1, value + sum(idle[count:]), [jobs[:count]], shared[0].takes_s(1))
        return choice

    def _none(self, jobs: Sequence[Job], value: float, prospect: Prospect) -> Choice:
        return Choice([Option(0, value)], None, [[]], jobs, [0.0], prospect.table.step_s if self.patient else {})

    # --- orders -----------------------------------------------------------------------------------------------

    def _orders(self, at: Bin, now: Round) -> list[Order]:
        """Carry out a node's best choice: what starts, what shrinks for it, and what grows into what is left."""
        floor, picked = now.floor, at.chosen()
        orders, short = _starts(at, picked[len(at.running) :], floor)
        for role, job in short.items():
            now.short.setdefault(role, job)
        freed: set[Role] = set()
        kept: list[Running] = []
        grown: list[tuple[Running, int]] = []
        for choice, option in zip(at.running, picked[: len(at.running)], strict=True):
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
        return orders

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


def _starts(at: Bin, picked: Sequence[Option], floor: Floor) -> tuple[list[Order], dict[Role, Job]]:
    """What can start, and what of each role has to wait for GPUs. On fewer GPUs than chosen, unless it would then be in the
    midst of a longer step when more are free."""
    orders: list[Order] = []
    short: dict[Role, Job] = {}
    for gpus, members, step_s in _in_order(at.waiting, picked):
        there = floor.most(members[0], gpus, at.node.workers)
        if there < gpus:
            short.setdefault(members[0].role, members[0])
            if step_s and step_s.get(there, 0.0) > WAIT * at.soon_s(gpus):
                continue
        workers = floor.take(members[0], gpus, at.node.workers)
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


def _in_order(waiting: Sequence[Choice], picked: Sequence[Option]) -> list[tuple[int, list[Job], Mapping[int, float]]]:
    """(GPUs, batch, seconds of a step by GPUs) of all that is to start, what is worth most for a GPU first."""
    rows: list[tuple[float, int, list[Job], Mapping[int, float]]] = []
    for choice, option in zip(waiting, picked, strict=True):
        batches = choice.batches[option.tag]
        worth = (option.value - choice.options[0].value) / max(option.size, 1)
        rows += [(worth, option.size // len(batches), members, choice.step_s) for members in batches]
    rows.sort(key=lambda row: (-row[0], row[2][0].seq))
    return [row[1:] for row in rows]


def by_key(jobs: Sequence[Job], *, batch: bool) -> list[list[Job]]:
    """In order, those that may share a batch together."""
    groups: dict[str, list[Job]] = {}
    for job in jobs:
        groups.setdefault((job.batch_key if batch else "") or job.request, []).append(job)
    return list(groups.values())
