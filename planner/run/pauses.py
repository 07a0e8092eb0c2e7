"""Pausing a task between two steps, and going on with it: on the same worker, or on another from its snapshot.

A snapshot is held by the worker that took it, as outputs are, until the stage is computed: it is fenced by its epoch, told
again in every Hello, and gone with its worker, and then the stage begins anew from its input. Pausing is no failed try: it is
not charged. That it ends is seen to by a bound on how often a request is paused.
"""

from typing import Any

from planner.domain import TaskRef
from planner.run.book import Book, Request, Snapshot
from planner.run.dispatch import Worker
from planner.run.effects import PauseTask


class Pauses(Book):
    """The ledger's part that pauses."""

    def pause(self, request_id: str, *, bounded: bool = True) -> bool:
        """Have its worker stop it at the next step boundary; ``paused`` tells when it has.

        False: no worker has it, that one's stage cannot pause, or (``bounded``) it was paused as often as it may be.
        """
        request = self.requests.get(request_id)
        lease = request.lease if request is not None else None
        if request is None or lease is None or lease.pausing:
            return False
        worker = self.workers[lease.worker]
        if (lease.started and not worker.preemptible) or (bounded and request.pauses >= self.limits.max_pauses):
            return False
        lease.pausing = True
        self._out.append(PauseTask(lease.worker, lease.ref))
        return True

    def pause_all(self, worker_id: str) -> int:
        """Have a worker that will be gone soon stop whatever it has; how many tasks that are."""
        worker = self.workers.get(worker_id)
        return sum(self.pause(request, bounded=False) for request in list(worker.leases)) if worker is not None else 0

    def paused(self, worker_id: str, ref: TaskRef, step: int, seconds: float, handle: Any) -> bool:
        """The task was stopped. ``handle``: to the snapshot after ``step`` steps; None: it begins anew from its input.

        ``seconds``: of compute that the snapshot stands for. False: it is not the present lease's, and dropped.
        """
        request = self._current(worker_id, ref)
        if request is None:
            worker = self.workers.get(worker_id)
            if handle is not None and (worker is None or ref.key not in worker.outputs):
                self.fenced += 1
                self._drop(worker_id, ref)
            return False
        self._unlease(request)
        request.pauses, self.pauses = request.pauses + 1, self.pauses + 1
        if handle is not None:
            self._keep(request, Snapshot(worker_id, ref, handle, step, seconds))
        self._rewind(request)
        return True

    def pause_refused(self, worker_id: str, ref: TaskRef) -> None:
        """The task goes on, and is not asked again: what hinders it will hinder it at the next step."""
        request = self._current(worker_id, ref)
        if request is not None and request.lease is not None:
            request.lease.pausing = False
            request.pauses = self.limits.max_pauses

    def _keep(self, request: Request, snapshot: Snapshot) -> None:
        if request.snapshot is not None and request.snapshot.ref != snapshot.ref:
            self._release(request.snapshot)
        request.snapshot = snapshot
        self.workers[snapshot.worker].outputs[snapshot.ref.key] = request.id

    def _claim_snapshot(self, worker: Worker, ref: TaskRef, handle: Any, step: int, seconds: float) -> None:
        """A worker says that it holds a snapshot. Keep it if it is the furthest of a stage not yet computed."""
        request = self.requests.get(ref.request)
        if request is None or ref.stage not in request.stages or ref.epoch in request.fenced:
            self._drop(worker.id, ref)
            return
        index, known = request.stages.index(ref.stage), request.snapshot
        further = (
            known is None or known.ref == ref or (request.stages.index(known.ref.stage), known.step) < (index, step)
        )
        if request.at > index or request.publishing is not None or not further:
            self._drop(worker.id, ref)
            return
        self._keep(request, Snapshot(worker.id, ref, handle, step, seconds))
        if request.lease is not None and request.lease.ref == ref:
            self._unlease(request)  # word of the pause was lost on the way
            request.pauses, self.pauses = request.pauses + 1, self.pauses + 1
            self._rewind(request)
        elif request.at < index:
            self._revoke(request)  # whoever computes its input need not
            self._discard_waiting(request)
            request.at = index
            self._rewind(request)
