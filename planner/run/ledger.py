"""The request state machine: at-least-once work, exactly one visible result.

A request passes its stages in order. For each it is *leased* to a worker under a fresh *epoch*; a result counts only if
it carries the epoch of the present lease, so that late, repeated and reordered messages change nothing. Outputs stay with
the worker that made them until the request is durably past them, so that losing a worker costs one stage, not the request.
A try is charged once compute began; after ``max_attempts`` charged tries the request is a dead letter with evidence.

Everything here is pure: ``now`` (monotonic seconds) is an argument, effects are returned by :meth:`Ledger.effects`.
"""

import heapq
from collections.abc import Iterable, Sequence
from typing import Any

from planner.domain import Role, TaskRef
from planner.run.book import LAST_WORDS, Lease, Output, Request
from planner.run.dispatch import Worker
from planner.run.effects import Attempt, Condemn, Effect, PauseTask, Publish, SpreadTask
from planner.run.viewing import Viewing


class Ledger(Viewing):
    """Call events, then collect :meth:`effects`."""

    # --- requests ---------------------------------------------------------------------------------------------

    def submit(self, request: Request) -> None:
        """Take in an accepted request (its row is durable). ``seq`` is set here: the place in line."""
        self._adopt(request)
        self._enqueue(request)

    def recover(self, requests: Iterable[Request], now: float, grace_s: float) -> None:
        """Take in what an earlier head had accepted. Nothing is dispatched until workers had ``grace_s`` to report."""
        for request in requests:
            self._adopt(request)
            self._on_hold[request.id] = None
        self._hold_until_s = now + grace_s

    @property
    def holding(self) -> bool:
        """Whether workers still have time to report what an earlier head had given them."""
        return self._hold_until_s is not None

    def release_hold(self) -> None:
        """Everybody has reported (or had the time to): queue what nobody has."""
        held, self._on_hold, self._hold_until_s = self._on_hold, {}, None
        for request_id in held:
            request = self.requests.get(request_id)
            if request is not None and request.lease is None and request.publishing is None:
                self._rewind(request)  # the holder of its input may have come and gone meanwhile

    def cancel(self, request_id: str) -> bool:
        """End a request at its user's wish. False: it is not here, or its result is being published."""
        request = self.requests.get(request_id)
        if request is None or request.publishing is not None:
            return False
        self._finish(request, "cancelled", "cancelled", "cancelled by the user")
        return True

    def published(self, request_id: str) -> None:
        """The result is durable: let go of everything held for the request."""
        request = self.requests.get(request_id)
        if request is not None and request.publishing is not None:
            self._forget(request)

    def publish_failed(self, request_id: str, message: str) -> None:
        """The result could not be made durable because its bytes are missing or wrong: compute the stage again."""
        request = self.requests.get(request_id)
        if request is None or request.publishing is None:
            return
        ref, request.publishing = request.publishing, None
        output = request.outputs.pop(request.at, None)
        worker = output.worker if output else ""
        if output:
            self._release(output)
        self._charge(request, worker, ref, "artifact", message)

    # --- workers ----------------------------------------------------------------------------------------------

    def worker_ready(
        self,
        worker_id: str,
        role: Role,
        prefetch: int,
        now: float,
        *,
        preemptible: bool = False,
        gpus: int = 1,
        accelerator: str = "",
    ) -> None:
        """A worker has loaded a role and grants credit. What it made in an earlier role it still holds."""
        known, role = self.workers.get(worker_id), self._one(role)
        if known is not None and known.role != role:
            for request in [self.requests[request_id] for request_id in known.leases]:
                self._unlease(request)  # not fenced: should it have been finished, the output may yet be told
                self._rewind(request)
            self._pool(known.role).remove(worker_id)
            known.role, known.computing, known.seconds = role, None, None
        if known is None:
            known = Worker(worker_id, role, prefetch, now, batch=self.limits.batch)
            self.workers[worker_id] = known
        known.seen_s = now
        known.draining, known.preemptible, known.accelerator, known.loading = False, preemptible, accelerator, None
        known.gpus = gpus
        self._pool(role).place(known)
        self._dirty[role] = None

    def worker_draining(self, worker_id: str, loading: Role | None = None) -> None:
        """Give it nothing new; what it has not started it will hand back. ``loading``: the role that it then takes."""
        worker = self.workers.get(worker_id)
        if worker is not None:
            worker.draining, worker.loading = True, loading
            self._pool(worker.role).place(worker)

    def takes(self, worker_id: str) -> Role | None:
        """The role whose tasks this worker takes now; None: of none."""
        worker = self.workers.get(worker_id)
        return None if worker is None or worker.draining else worker.role

    def seen(self, worker_id: str, now: float) -> None:
        """A sign of life, from the worker or from the agent that vouches for its process: renews all its leases."""
        worker = self.workers.get(worker_id)
        if worker is not None:
            worker.seen_s = now

    def worker_lost(self, worker_id: str, why: str, charge: Sequence[TaskRef] | None = None) -> None:
        """The worker is gone with all it held.

        ``charge``: what it is known to have been computing; None: unknown, then the task that it started last. Of a batch
        nobody is charged: which of them it was shows when each is tried alone. Where one is, the others' loss does not count
        against them: a few tasks that kill every worker must not take those with them that wait behind.
        """
        worker = self.workers.pop(worker_id, None)
        if worker is None:
            return
        self._pool(worker.role).remove(worker_id)
        blamed = self._computing(worker) if charge is None else charge
        for key, request_id in list(worker.outputs.items()):
            self._output_gone(request_id, key)
        held = [self.requests.get(request_id) for request_id in worker.leases]
        leases = [
            one.lease for one in held if one is not None and one.lease is not None and one.lease.worker == worker_id
        ]
        explained = len(blamed) == 1 and any(lease.ref in blamed for lease in leases)
        for lease in leases:
            request = self.requests[lease.ref.request]
            suspect = lease.ref in blamed
            request.alone = request.alone or (suspect and len(blamed) > 1)
            self._lease_lost(request, lease, why, charged=suspect and explained, counts=not explained)

    def resync(
        self,
        worker_id: str,
        tasks: Sequence[tuple[TaskRef, bool]],
        outputs: Sequence[tuple[TaskRef, Any]],
        now: float,
        snapshots: Sequence[tuple[TaskRef, Any, int, float]] = (),
    ) -> None:
        """The worker restated what it holds. ``tasks``: (ref, started); ``outputs``: (ref, handle) of non-final stages.

        ``snapshots``: (ref, handle, steps done, seconds that they took) of paused tasks.

        What we thought it had and it has not is given to others; what it has and we do not want it told to forget.
        """
        worker = self.workers.get(worker_id)
        if worker is None:
            return
        worker.seen_s = now
        for ref, handle in outputs:
            self._claim_output(worker, ref, handle)
        for ref, handle, step, seconds in snapshots:
            self._claim_snapshot(worker, ref, handle, step, seconds)
        for ref, started in tasks:
            self._claim_task(worker, ref, started, now)
        told = {ref for ref, _ in (*tasks, *outputs)} | {ref for ref, *_ in snapshots}
        self._agree_on_leases(worker, told, now)
        kept = {ref.key for ref, _ in outputs} | {ref.key for ref, *_ in snapshots}
        for key, request_id in list(worker.outputs.items()):
            if key not in kept:
                del worker.outputs[key]
                self._output_gone(request_id, key)
        self._pool(worker.role).place(worker)

    def _agree_on_leases(self, worker: Worker, told: set[TaskRef], now: float) -> None:
        """What it did not name it does not have; what it was to pause it may not have heard of."""
        for request_id in list(worker.leases):
            lease = self.requests[request_id].lease
            if lease is not None and lease.pausing and lease.ref in told:
                self._out.append(PauseTask(worker.id, lease.ref))  # it may not have heard of it
            if lease is not None and lease.ref not in told:
                self._refuse(worker.id, lease.ref)  # it may still be on its way there
                request = self.requests[request_id]
                if now - lease.assigned_s > self.limits.transit_s:
                    self._lease_lost(request, lease, "the worker does not have it", charged=False)
                else:
                    self._unlease(request)
                    self._rewind(request)

    # --- progress ---------------------------------------------------------------------------------------------

    def started(self, worker_id: str, ref: TaskRef, now: float) -> None:
        """Compute began; the input has arrived, so what lies before it is no longer needed."""
        request = self._current(worker_id, ref)
        if request is not None:
            self._begun(request, worker_id, ref, now)

    def _begun(self, request: Request, worker_id: str, ref: TaskRef, now: float) -> None:
        if request.lease is None:
            return
        request.lease.started = True
        request.lease.touched_s = now
        self.workers[worker_id].computing = ref
        if request.started_s is None:
            request.started_s = now
        if request.at > 1:
            for index in [i for i in request.outputs if i < request.at - 1]:
                self._release(request.outputs.pop(index))
        if request.snapshot is not None:
            holder = self.workers.get(request.snapshot.worker)
            if holder is not None and holder.draining and holder.id != worker_id:
                self._drop_snapshot(request)  # it goes as soon as nobody needs it

    def stepped(self, worker_id: str, ref: TaskRef, step: int, steps: int, now: float) -> None:
        """A denoise step was computed."""
        request = self._current(worker_id, ref)
        if request is not None and request.lease is not None:
            if self.workers[worker_id].gpus > 1:
                self._paced(request, request.lease, step, now)
            request.step, request.steps = step, steps
            request.lease.touched_s = now

    def source_of(self, ref: TaskRef) -> str | None:
        """The worker that holds the input of a task that is out; None for the first stage's."""
        request = self.requests.get(ref.request)
        if request is None:
            return None
        output = (request.snapshot and request.resumable) or request.outputs.get(request.at - 1)
        return output.worker if output is not None else None

    def done(
        self, worker_id: str, ref: TaskRef, result: Any, seconds: float, fetch_s: float = 0.0, now: float | None = None
    ) -> bool:
        """A stage was computed: ``result`` is a handle to its output, or after the last stage the artefact.

        ``now``: given where word of a short task's start may have been left out. False when the result is fenced: it belongs
        to a lease that is no longer the present one.
        """
        request = self._current(worker_id, ref)
        if request is None:
            self.fenced += 1
            worker = self.workers.get(worker_id)
            if worker is not None and ref.key in worker.outputs:
                return True  # said twice: we rely on that output
            self._drop(worker_id, ref)
            return False
        if now is not None and request.lease is not None and not request.lease.started:
            self._begun(request, worker_id, ref, now)
        worker = self.workers.get(worker_id)
        if worker is not None:
            worker.observe(seconds, fetch_s)
            worker.outputs[ref.key] = request.id
        self._unlease(request)
        if request.snapshot is not None:
            self._drop_snapshot(request)
        output = Output(worker_id, ref, result)
        request.step = request.steps = 0
        request.outputs[request.at] = output
        if request.at >= request.furthest:
            request.furthest, request.losses = request.at + 1, 0
        if request.at == len(request.stages) - 1:
            request.publishing = ref
            self._out.append(Publish(ref, result, len(request.evidence) + 1))
        else:
            request.at += 1
            self._enqueue(request)
        return True

    def failed(
        self, worker_id: str, ref: TaskRef, code: str, message: str, *, retry: bool, param: str | None = None
    ) -> None:
        """A try failed on a worker that lives on. ``retry`` False: the request is at fault, in its field ``param``."""
        request = self._current(worker_id, ref)
        if request is None:
            return
        self._unlease(request)
        self._drop_snapshot(request)  # should it be what the try failed of
        if retry:
            self._charge(request, worker_id, ref, code, message)
        else:
            request.evidence.append(Attempt(worker_id, ref.stage, code, message[:LAST_WORDS]))
            self._finish(request, "failed", code, message[:LAST_WORDS], param)

    def input_lost(self, worker_id: str, ref: TaskRef, key: str, message: str) -> None:
        """The worker could not get the task's input: go back to the last stage whose input there is."""
        request = self._current(worker_id, ref)
        if request is None:
            return
        self._unlease(request)
        before = request.outputs.get(request.at - 1)
        if before is not None and before.ref.key == key:
            self._release(request.outputs.pop(request.at - 1))
        if request.snapshot is not None and request.snapshot.ref.key == key:
            self._drop_snapshot(request)
        self._lose(request, worker_id, ref.stage, f"input lost: {message}")

    def returned(self, worker_id: str, ref: TaskRef) -> None:
        """A task came back unstarted, free of charge: the worker drains or switches, and says so when it is ready again."""
        request = self._current(worker_id, ref)
        if request is not None:
            self.worker_draining(worker_id)
            self._unlease(request)
            self._rewind(request)

    # --- time -------------------------------------------------------------------------------------------------

    def tick(self, now: float) -> None:
        """Expire leases, end the hold after a restart, move work to idle workers. Call a few times a second."""
        gap = now - self._last_tick_s if self._last_tick_s is not None else 0.0
        self._last_tick_s = now
        self.miss_deadlines(now)
        if gap > self.limits.lease_s / 2:  # it was we who slept: nobody had a chance to be seen
            for worker in self.workers.values():
                worker.seen_s = max(worker.seen_s, now)
                for lease in self._leases(worker):
                    lease.touched_s = now
            return
        for worker in list(self.workers.values()):
            if now - worker.seen_s > self.limits.lease_s:
                self.worker_lost(worker.id, f"not heard from for {self.limits.lease_s:g} s")
        if self._hold_until_s is not None and now >= self._hold_until_s:
            self.release_hold()
        for worker in list(self.workers.values()):
            self._check_leases(worker, now)
        self._dirty.update(dict.fromkeys(self._waiting))  # whatever blocked a queue may have gone without a word

    def effects(self, now: float) -> list[Effect]:
        """Dispatch what can be dispatched, and hand over everything to be done, in order."""
        if self.look_again_s is not None and now >= self.look_again_s:
            self.look_again_s = None
            self._dirty.update(dict.fromkeys(self._waiting))
        if self.policy is not None:
            if self._dirty or (self._ask_s is not None and now >= self._ask_s):
                self._consult(now)
            self._dirty.clear()
        while self._dirty:
            role = next(iter(self._dirty))
            del self._dirty[role]
            self._dispatch(role, now)
        out, self._out = self._out, []
        return out

    def miss_deadlines(self, now: float) -> None:
        """A result after its deadline is of no use, and the work in it is others' to have."""
        while self._deadlines and self._deadlines[0][0] <= now:
            request = self.requests.get(heapq.heappop(self._deadlines)[1])
            if request is not None and request.publishing is None:
                stage = request.stages[request.at]
                self._finish(request, "failed", "deadline_exceeded", f"not finished in time; it was at {stage}")

    # --- what workers claim ---

    def _claim_output(self, worker: Worker, ref: TaskRef, handle: Any) -> None:
        """A worker says that it holds this stage's output. Keep it if it is of use, else have it dropped."""
        request = self.requests.get(ref.request)
        if request is None or ref.stage not in request.stages or ref.epoch in request.fenced:
            self._drop(worker.id, ref)
            return
        index = request.stages.index(ref.stage)
        known = request.outputs.get(index)
        if known is not None and known.ref != ref:
            if known.ref.epoch > ref.epoch or (request.publishing is not None and index == request.at):
                self._drop(worker.id, ref)
                return
            self._release(known)
        request.outputs[index] = Output(worker.id, ref, handle)
        worker.outputs[ref.key] = request.id
        if request.lease is not None and request.lease.ref == ref:
            self._unlease(request)  # its Done was lost on the way; the output is the proof
        if request.publishing is None and request.at <= index:
            self._revoke(request)  # whoever computes it again need not
            self._move_past(request, index, ref)

    def _move_past(self, request: Request, index: int, ref: TaskRef) -> None:
        self._discard_waiting(request)
        if request.snapshot is not None and request.stages.index(request.snapshot.ref.stage) <= index:
            self._drop_snapshot(request)
        if index == len(request.stages) - 1:
            request.at, request.publishing = index, ref
            self._out.append(Publish(ref, request.outputs[index].handle, len(request.evidence) + 1))
            return
        request.at = index + 1
        self._enqueue(request)

    def _claim_task(self, worker: Worker, ref: TaskRef, started: bool, now: float) -> None:
        """A worker says that it has this task. Adopt the lease if nobody has a newer one, else have it dropped."""
        request = self.requests.get(ref.request)
        if request is None or ref.stage not in request.stages or ref.epoch in request.fenced:
            self._refuse(worker.id, ref)
            return
        index, lease = request.stages.index(ref.stage), request.lease
        if worker.role != Role(request.model, ref.stage):
            self._refuse(worker.id, ref)
            return
        if lease is not None and lease.ref == ref:
            lease.started = lease.started or started
            worker.computing = ref if started else worker.computing
            return
        wanted = request.at <= index if request.id in self._on_hold else request.at == index
        if not wanted or request.publishing is not None or (lease is not None and lease.ref.epoch > ref.epoch):
            self._refuse(worker.id, ref)
            return
        self._revoke(request)
        self._discard_waiting(request)
        request.at = index
        request.lease = Lease(ref, worker.id, now, now, started)
        if worker.gpus > 1:
            self._out.append(SpreadTask(worker.id, ref, worker.gpus))  # an earlier head's order is not known
        worker.leases[request.id] = ref.epoch
        worker.computing = ref if started else worker.computing

    def _check_leases(self, worker: Worker, now: float) -> None:
        """Condemn a worker whose task does not move; let an idle colleague take what waits behind another task."""
        none_started = not any(lease.started for lease in self._leases(worker))
        for position, request_id in enumerate(list(worker.leases)):
            request = self.requests[request_id]
            lease = request.lease
            if lease is None:
                continue
            watched = lease.started or (position == 0 and none_started)
            if watched and now - lease.touched_s > self.limits.stall_s:
                why = f"no progress for {self.limits.stall_s:g} s"
                self._out.append(Condemn(worker.id, why))
                self.worker_lost(worker.id, why)
                return
            waited = position > 0 and not lease.started and now - lease.assigned_s > self.limits.steal_after_s
            if (
                waited
                and self.policy is None
                and request.ready
                and self.queued(worker.role) == 0
                and self._idle(worker.role, request.blamed)
            ):
                self._revoke(request)
                self._enqueue(request)
                self._dispatch(worker.role, now)

    def _computing(self, worker: Worker) -> list[TaskRef]:
        """What it was computing as far as it told: the task that it started last, and those that may be in a batch with it."""
        last = next((lease for lease in self._leases(worker) if lease.ref == worker.computing), None)
        if last is None or last.batch is None:
            return [] if last is None else [last.ref]
        return [lease.ref for lease in self._leases(worker) if lease.started and lease.batch == last.batch]

    def _idle(self, role: Role, blamed: set[str]) -> bool:
        idle = (w for w in self.workers.values() if w.role == role and not w.leases and not w.draining)
        return any(w.id not in blamed for w in idle)
