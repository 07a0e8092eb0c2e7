"""Dispatch by a policy: what the ledger shows it, and how its orders are carried out (:mod:`planner.run.orders`).

Only for services whose spec asks for more than first come, first served. A worker then has one task, or batch, at a time: who
is next is decided when it is free, or to be freed.
"""

from collections.abc import Callable, Mapping
from typing import Final

from msgspec.structs import replace

from planner.domain import Batch, Role, Shape
from planner.run.book import Lease, Limits, Request
from planner.run.dispatch import Worker
from planner.run.effects import LoadRole, SpreadTask
from planner.run.orders import (
    AskAgain,
    Card,
    DispatchConfig,
    DispatchPolicy,
    Instance,
    Job,
    Load,
    Order,
    Pause,
    Running,
    SetDegree,
    Start,
    View,
)
from planner.run.pace import Pace
from planner.run.pauses import Pauses

MOST_SHOWN: Final = 1_000  # waiting requests, the first in line
NO_SHAPE: Final = Shape(0, 0)

Cards = Callable[[], Mapping[str, Card]]
"""() → worker → the GPU that it is on, for those where something may be loaded, ever"""


def _no_cards() -> Mapping[str, Card]:
    return {}


class Viewing(Pauses):
    """Without a policy: first come, first served."""

    def __init__(self, incarnation: int, limits: Limits | None = None) -> None:
        super().__init__(incarnation, limits)
        self.policy: DispatchPolicy | None = None
        self.cards: Cards = _no_cards
        self.pace = Pace()
        self._ask_s: float | None = None

    def serve_by(self, policy: tuple[DispatchConfig, DispatchPolicy] | None) -> None:
        """Have a policy decide from here on; None: first come, first served."""
        if policy is not None:
            config, self.policy = policy
            self.limits = replace(self.limits, max_pauses=config.max_pauses)

    def goes_in_steps(self, role: Role) -> bool:
        """Whether the role's workers compute in steps, as far as one has said."""
        return any(worker.preemptible for worker in self.workers.values() if worker.role == role)

    def view(self) -> View:
        """Everything as it is: requests that wait and may start, tasks that are out, workers."""
        waiting = [self.requests[name] for line in self._waiting.values() for name in line if name in self.requests]
        open_to = {role: not line or not self._blocked(self.requests[next(iter(line))]) for role, line in self._lines()}
        pending = sorted((r for r in waiting if open_to[r.role]), key=lambda r: (-r.priority, r.seq))[:MOST_SHOWN]
        pending.sort(key=lambda r: r.seq)
        running = (self._running(worker) for worker in self.workers.values() if worker.leases)
        cards = self.cards()
        return View(
            tuple(map(self._job, pending)),
            tuple(task for task in running if task is not None),
            tuple(self._instance(worker, cards.get(worker.id)) for worker in self.workers.values()),
        )

    def degree(self, lease: Lease | None) -> int | None:
        """GPUs that a task is spread over, as was ordered last; None: it is nowhere, or its worker has one."""
        worker = self.workers.get(lease.worker) if lease is not None else None
        if lease is None or worker is None or worker.gpus == 1:
            return None
        return lease.degree or worker.gpus

    def obey(self, order: Order, now: float) -> None:
        """Carry out one order, if it still fits."""
        match order:
            case Start(requests=requests, worker=name, degree=degree):
                worker = self.workers.get(name)
                if worker is not None and not worker.leases and not worker.draining:
                    batch = Batch(f"{self._epoch}", min(len(requests), self.limits.batch))
                    for request_id in requests:
                        self._start(request_id, worker, now, batch if batch.most > 1 else None, degree)
            case Pause(request=request_id):
                self.pause(request_id)
            case SetDegree(request=request_id, degree=degree):
                self._spread(request_id, degree)
            case Load(worker=name, role=role, drop=drop, why=why):
                worker = self.workers.get(name)
                if worker is not None and not worker.leases and not worker.draining:
                    self._out.append(LoadRole(name, role, drop, why))
            case AskAgain(at_s=at_s):
                self._ask_s = self.look_again_s = at_s

    def _consult(self, now: float) -> None:
        """Show the policy how things are, and do what it says."""
        self._ask_s = None
        if self.policy is not None:
            for order in self.policy.decide(self.view(), now):
                self.obey(order, now)

    def _start(self, request_id: str, worker: Worker, now: float, batch: Batch | None, degree: int) -> None:
        request = self.requests.get(request_id)
        if request is None or request.role != worker.role:
            return
        waiting = self._waiting.get(worker.role)
        if waiting is not None and request_id in waiting:
            waiting.discard(request_id)
            self._assign(request, worker, now, batch, degree)

    def _spread(self, request_id: str, degree: int) -> None:
        request = self.requests.get(request_id)
        lease = request.lease if request is not None else None
        if lease is not None and lease.batch is None and 1 <= degree <= self.workers[lease.worker].gpus:
            lease.degree, lease.settling = degree, 2
            self._out.append(SpreadTask(lease.worker, lease.ref, degree))

    def _paced(self, request: Request, lease: Lease, step: int, now: float) -> None:
        """A worker with several GPUs has got on to this step."""
        worker, more = self.workers[lease.worker], step - request.step
        if lease.settling:
            lease.settling -= 1
        elif more > 0 and request.shape is not None and lease.batch is None:
            key = (request.role, worker.accelerator, request.shape, lease.degree or worker.gpus)
            if self.pace.add(key, (now - lease.stepped_s) / more):
                self._dirty[worker.role] = None  # the policy may want to try another number
        lease.stepped_s = now

    def _lines(self) -> list[tuple[Role, list[str]]]:
        return [(role, [n for n in line if n in self.requests]) for role, line in self._waiting.items()]

    def _running(self, worker: Worker) -> Running | None:
        leases = list(self._leases(worker))
        if not leases:
            return None
        jobs = tuple(self._job(self.requests[lease.ref.request]) for lease in leases)
        degree = leases[0].degree or worker.gpus
        return Running(
            worker.id,
            jobs,
            max(lease.touched_s for lease in leases),
            degree,
            pausing=any(lease.pausing for lease in leases),
        )

    def _job(self, request: Request) -> Job:
        steps, done, snapshot = self._steps(request), request.step, request.resumable
        held = snapshot or request.outputs.get(request.at - 1)
        return Job(
            request.id,
            request.role,
            request.shape or NO_SHAPE,
            request.submitted_s,
            request.seq,
            steps,
            max(1, steps - done),
            request.priority,
            request.due_s if request.due_s is not None else request.deadline_s,
            request.pauses,
            request.stages[request.at + 1 :],
            held.worker if held is not None else "",
            batch_key=request.alike if self._shared(request) is not None else "",
            avoid=frozenset(request.blamed),
        )

    def _steps(self, request: Request) -> int:
        """Of the stage that it is at: as the worker said, else as many as were asked for where the stage goes in steps."""
        if request.steps:
            return request.steps
        return request.shape.steps if request.shape is not None and self.goes_in_steps(request.role) else 1

    def _instance(self, worker: Worker, card: Card | None) -> Instance:
        """A process has one role at a time. Where nothing is said of its GPU, nothing is loaded there."""
        residents = frozenset((worker.role,))
        return Instance(
            worker.id,
            worker.id.partition(".")[0],
            worker.accelerator,
            residents,
            int(not worker.leases and not worker.draining),
            tuple(degree for degree in range(1, worker.gpus + 1) if worker.gpus % degree == 0),
            loading=worker.loading,
            draining=worker.draining,
            card=card or Card(worker.id, residents),
        )
