"""Receive → compute → send, overlapped: threads around one model, each with a bounded line of work.

Bytes of the next task arrive while this one computes and the last one's result leaves. The bounds are the worker's credits:
no line can hold more than the tasks that the head has assigned. Completions are posted as functions on the core, so that the
state machine stays on the one thread that owns it.
"""

import logging
import queue
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from planner.domain import TaskRef
from stages.batch import Member, run_together, split
from stages.cache import OutputCache, key_of
from stages.closet import Closet
from stages.core import WorkerCore
from stages.fetching import try_fetch
from stages.instructions import Instruction, Load
from stages.models.base import Batching, BatchJob, File, Job, ModelError, RequestError, Spreadable, StageModel
from stages.models.registry import choose
from stages.parcel import Parcel, ParcelError, copied
from stages.protocol import INLINE_BYTES, Artifact, InlineRoute, ModelSource, Offer, Task
from stages.recorder import Recorder
from stages.storing import Uploader, stored
from stages.suspended import Suspended
from stages.transport.base import Fetcher, FetchError, Outbox

log = logging.getLogger(__name__)

Completion = Callable[[WorkerCore], list[Instruction]]
Post = Callable[[Completion], None]

FETCH_DEADLINE_S: Final = 30.0  # and a second for every SLOWEST_BYTES_PER_S; one that stalls ends sooner
SLOWEST_BYTES_PER_S: Final = 1 << 17
STEP_NEWS_S: Final = 0.05  # progress is told at most this often


@dataclass(frozen=True, slots=True)
class Pausing:
    """A task was stopped between two steps; without a snapshot before its first."""

    snapshot: Parcel | None
    step: int
    steps: int


class Pipeline:
    """Owns the threads, the model and the bytes in flight. Methods are called from the worker's main thread."""

    def __init__(
        self,
        post: Post,
        outbox: Outbox,
        fetchers: Sequence[Fetcher],
        uploader: Uploader,
        recorder: Recorder,
        device: str,
        cache: OutputCache | None = None,
        suspended: Suspended | None = None,
    ) -> None:
        """One thread a fetcher; the last fetcher is the compute thread's, for what is inline."""
        self._post = post
        self._outbox = outbox
        *others, self._inline = fetchers
        self._recorder = recorder
        self._uploader = uploader  # used by the send thread alone
        self._device = device
        self._model: tuple[tuple[ModelSource, str], StageModel] | None = None
        self._light = False  # the model asks for no thread of its own
        self._closet = Closet(on_device=device != "cpu")
        self._cache = cache
        self._inputs: dict[str, Parcel] = {}
        self._results: dict[str, Parcel | File] = {}
        self._stop: set[str] = set()  # keys of tasks
        self._degrees: dict[str, int] = {}  # tasks whose number of GPUs is to change
        self._pause: set[str] = set()
        self._suspended = suspended or Suspended()
        self._lines: dict[str, queue.SimpleQueue[Callable[[], None] | None]] = {}
        self._to_fetch: queue.SimpleQueue[Task | None] = queue.SimpleQueue()
        self._threads = [self._start(name) for name in ("compute", "send")]
        self._fetch_threads = [self._start_fetching(fetcher) for fetcher in others]

    # --- from the main thread ---------------------------------------------------------------------------------

    def load(self, order: Load) -> None:
        """Load a role's weights on the compute thread."""
        self._lines["compute"].put(lambda: self._load(order))

    def unload(self) -> None:
        """Free the model."""
        self._lines["compute"].put(self._unload)

    def fetch(self, task: Task) -> None:
        """Bring the task's input here."""
        self._to_fetch.put(task)

    def compute(self, task: Task, others: tuple[Task, ...] = ()) -> None:
        """Run the task, with ``others`` if they fit together.

        On the compute thread, or here where a change of threads would take longer than the work.
        """
        if self._light:
            for one in (task, *others) if others else (task,):
                self._compute(one)
        else:
            self._lines["compute"].put(lambda: self._compute_all((task, *others)) if others else self._compute(task))

    def publish(self, ref: TaskRef) -> None:
        """Offer or upload the task's result."""
        self._lines["send"].put(lambda: self._publish(ref))

    def stop_task(self, ref: TaskRef) -> None:
        """Stop computing it at the next step, or do not begin it."""
        self._stop.add(ref.key)

    def suspend(self, ref: TaskRef) -> None:
        """Stop computing it at the next step, with a snapshot to go on from."""
        self._pause.add(ref.key)

    def set_degree(self, ref: TaskRef, degree: int) -> None:
        """Compute it on so many GPUs from the next step on."""
        self._degrees[ref.key] = degree

    def forget(self, key: str) -> None:
        """Drop everything kept under the key."""
        for kept in (self._inputs, self._results, self._degrees):
            if kept:  # small inputs and results ride in messages: mostly nothing is kept
                kept.pop(key, None)
        self._stop.discard(key)  # should it have come when there was nothing left to stop
        self._pause.discard(key)
        self._suspended.forget(key)
        self._outbox.drop(key)

    def close(self, timeout_s: float = 5.0) -> None:
        """End the threads (a computation in progress is not waited for longer than ``timeout_s``)."""
        for line in self._lines.values():
            line.put(None)
        for _ in self._fetch_threads:
            self._to_fetch.put(None)
        for thread in (*self._threads, *self._fetch_threads):
            thread.join(timeout_s)

    # --- on the threads ---------------------------------------------------------------------------------------

    def _start(self, name: str) -> threading.Thread:
        line: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._lines[name] = line

        def run() -> None:
            while (job := line.get()) is not None:
                job()

        thread = threading.Thread(target=run, name=name, daemon=True)
        thread.start()
        return thread

    def _start_fetching(self, fetcher: Fetcher) -> threading.Thread:
        def run() -> None:
            while (task := self._to_fetch.get()) is not None:
                self._fetch(task, fetcher)

        thread = threading.Thread(target=run, name="fetch", daemon=True)
        thread.start()
        return thread

    def _load(self, order: Load) -> None:
        begin = time.monotonic()
        log.info("becoming %s", order.role)  # `disagctl logs --stage` goes by this
        key = (order.source, order.role.stage)
        try:
            model = self._closet.take(key)
            warm = model is not None
            if model is None:
                model = choose(order.source).load(*key, self._device)
        except ModelError as err:
            fatal = str(err)
            log.error("cannot load %s: %s", order.role, fatal)
            self._post(lambda core: core.load_failed(order.role, fatal, fatal=True))
        except Exception as err:  # boundary: an engine may raise anything
            text = f"{type(err).__name__}: {err}"
            log.exception("loading %s failed", order.role)
            self._closet.clear()  # it may have been memory that was short; there will be a next try
            self._post(lambda core: core.load_failed(order.role, text, fatal=False))
        else:
            self._model = (key, model)
            self._light = light = getattr(model, "light", False)
            took = time.monotonic() - begin
            log.info("loaded %s in %.1f s", order.role, took)
            peak = int(getattr(model, "peak_bytes", 0))
            preemptible = bool(getattr(model, "preemptible", False))
            self._post(
                lambda core: core.loaded(order.role, took, peak, warm=warm, light=light, preemptible=preemptible)
            )

    def _unload(self) -> None:
        self._suspended.unload()
        if self._model is not None:
            held, self._model, self._light = self._model, None, False
            self._closet.put(*held)
        if self._cache is not None:
            self._cache.clear()

    def _fetch(self, task: Task, fetcher: Fetcher) -> None:
        begin = time.monotonic()
        assert task.input is not None  # the core fetches only what has a remote input  # noqa: S101
        end = begin + FETCH_DEADLINE_S + task.input.nbytes / SLOWEST_BYTES_PER_S
        try:
            parcel = try_fetch(task.ref, task.input, fetcher, end)
        except FetchError as err:
            text, unreachable = str(err), err.unreachable
            log.warning("input of %s/%s: %s", task.ref.request, task.ref.stage, text)
            self._post(lambda core: core.fetch_failed(task.ref, text, unreachable=unreachable))
            return
        self._inputs[task.ref.key] = parcel
        took, via = time.monotonic() - begin, fetcher.via
        self._post(lambda core: core.fetched(task.ref, took, via))

    def _compute_all(self, tasks: tuple[Task, ...]) -> None:
        """In batches, as far as the model can; what cannot be, one by one."""
        model = self._model[1] if self._model is not None else None
        if not isinstance(model, Batching):
            for task in tasks:
                self._compute(task)
            return
        members: list[Member] = []
        for task in tasks:
            try:
                members.append(self._member(task))
            except FetchError:
                self._compute(task)  # which tells
        for group in split(model, members):
            if len(group) > 1:
                self._batch(model, group)
            for member in group:
                if not member.over:
                    self._compute(member.task)

    def _member(self, task: Task) -> Member:
        if task.input is not None and task.ref.key not in self._inputs:
            self._inputs[task.ref.key] = self._inline.fetch(task.input, FETCH_DEADLINE_S)
        return Member(task, msgspec.json.decode(task.params), self._inputs.get(task.ref.key))

    def _batch(self, model: Batching, members: list[Member]) -> None:
        """Compute at once what is to be computed. If that fails, whose fault it is shows when each is computed alone."""
        begin = time.monotonic()
        todo = [member for member in members if self._fresh(member)]
        if len(todo) < 2:
            return
        self._recorder.begin(*(member.task.ref for member in todo))
        try:
            results = run_together(
                model,
                todo,
                lambda member, job: self._leaves(member, job, (time.monotonic() - begin) / len(todo)),
                self._tell_steps(),
            )
        except Exception as err:  # noqa: BLE001  # boundary: an engine may raise anything
            frames = "".join(traceback.format_tb(err.__traceback__))
            log.warning("a batch of %d raised %s; one by one, then\n%s", len(todo), type(err).__name__, frames)
            return
        finally:
            self._recorder.end()
        took = (time.monotonic() - begin) / len(todo)
        for member, result in results:
            member.over = True
            self._inputs.pop(member.task.ref.key, None)
            self._made(member.task.ref, result, took, self._remember(member, result), len(todo))

    def _leaves(self, member: Member, job: BatchJob | None, took: float) -> bool:
        """Whether the batch goes on without it, because it was stopped or paused; then the core is told."""
        ref = member.task.ref
        if ref.key in self._stop:
            self._stop.discard(ref.key)
            self._post(lambda core: core.stopped(ref))
        elif job is None or ref.key not in self._pause or not self._pause_member(member, job, took):
            return False
        member.over = True
        return True

    def _pause_member(self, member: Member, job: BatchJob, took: float) -> bool:
        at = self._between(member.task.ref, job, 0, lambda: job.snapshot(member.place))
        if at is not None:
            self._paused(member.task.ref, at, took)
        return at is not None

    def _fresh(self, member: Member) -> bool:
        """Whether it has to be computed: it is wanted, and its result is not remembered."""
        key = self._cache_key(member.task, member.params)
        remembered = key is not None and self._cache is not None and self._cache.get(key) is not None
        return not remembered and not self._leaves(member, None, 0.0)

    def _remember(self, member: Member, result: Parcel | File) -> bool | None:
        key = self._cache_key(member.task, member.params)
        if key is None or self._cache is None or not isinstance(result, Parcel):
            return None
        self._cache.put(key, result)
        return False

    def _tell_steps(self) -> Callable[[Sequence[TaskRef], int, int], None]:
        told = time.monotonic()

        def tell(refs: Sequence[TaskRef], done: int, total: int) -> None:
            nonlocal told
            if total > 1 and (done == total or time.monotonic() - told >= STEP_NEWS_S):
                told = time.monotonic()
                for ref in refs:
                    self._post(lambda core, ref=ref: core.stepped(ref, done, total))  # type: ignore[misc]

        return tell

    def _compute(self, task: Task) -> None:
        begin = time.monotonic()
        ref = task.ref
        if self._stop and ref.key in self._stop:  # while it stood in line
            self._stop.discard(ref.key)
            self._post(lambda core: core.stopped(ref))
            return
        try:
            result, cached = self._recall(task, begin)
        except RequestError as err:
            self._fail(ref, "bad_request", str(err), retry=False, param=err.param)
            return
        except FetchError as err:
            text = str(err)
            self._post(lambda core: core.fetch_failed(ref, text))
            return
        except Exception as err:  # noqa: BLE001  # boundary: an engine may raise anything
            # The exception's text may quote the prompt, so the log has only where it happened.
            frames = "".join(traceback.format_tb(err.__traceback__))
            log.error("computing %s/%s raised %s\n%s", ref.request, ref.stage, type(err).__name__, frames)
            self._fail(ref, type(err).__name__, str(err), retry=True)
            return
        finally:
            self._recorder.end()
            self._pause.discard(ref.key)
        took = time.monotonic() - begin
        if result is None:
            self._stop.discard(ref.key)
            self._post(lambda core: core.stopped(ref))
        elif isinstance(result, Pausing):
            self._paused(ref, result, took)
        else:
            self._made(ref, result, took, cached)

    def _made(self, ref: TaskRef, result: Parcel | File, took: float, cached: bool | None, batch: int = 1) -> None:
        if (len(result.data) if isinstance(result, File) else result.nbytes) <= INLINE_BYTES:
            self._publish_result(ref, result, took, cached, batch)  # nothing to move: not worth a change of threads
        else:
            self._results[ref.key] = result
            self._post(lambda core: core.computed(ref, took, cached, batch))

    def _paused(self, ref: TaskRef, at: Pausing, took: float) -> None:
        if at.snapshot is None:
            self._post(lambda core: core.untouched(ref))
        else:
            self._results[ref.key] = at.snapshot
            self._post(lambda core: core.paused(ref, at.step, at.steps, took))

    def _recall(self, task: Task, begin: float) -> tuple[Parcel | File | Pausing | None, bool | None]:
        """The result, and whether it was remembered; None where nothing is."""
        params: dict[str, Any] = msgspec.json.decode(task.params)
        key = self._cache_key(task, params)
        if self._cache is None or key is None:
            return self._run(task, params, begin), None
        found = self._cache.get(key)
        if found is not None:
            self._inputs.pop(task.ref.key, None)
            return found, True
        result = self._run(task, params, begin)
        if isinstance(result, Parcel):
            self._cache.put(key, result)
        return result, False

    def _cache_key(self, task: Task, params: dict[str, Any]) -> bytes | None:
        """None: this stage's results are not remembered."""
        if self._cache is None or self._model is None:
            return None
        (source, stage), model = self._model
        ignored = getattr(model, "ignores", None)
        return None if ignored is None else key_of(source, stage, params, task.input, ignored)

    def _run(self, task: Task, params: dict[str, Any], begin: float) -> Parcel | File | Pausing | None:
        """None: stopped on the way."""
        self._recorder.begin(task.ref)
        job = self._job(task, params)
        _spread(job, task.degree)
        told, first = begin, job.steps_done
        while True:
            if self._stop and task.ref.key in self._stop:
                return None
            if (
                self._pause
                and task.ref.key in self._pause
                and (pausing := self._between(task.ref, job, first, job.snapshot)) is not None
            ):
                return pausing
            if self._degrees and task.ref.key in self._degrees:
                _spread(job, self._degrees.pop(task.ref.key))
            more = job.step()
            if job.total_steps > 1 and (not more or time.monotonic() - told >= STEP_NEWS_S):
                told = time.monotonic()
                done, total = job.steps_done, job.total_steps
                self._post(lambda core, d=done, t=total: core.stepped(task.ref, d, t))  # type: ignore[misc]
            if not more:
                return job.finish()

    def _job(self, task: Task, params: dict[str, Any]) -> Job:
        """Begin the task, or go on with it from where it was paused."""
        if self._model is None:
            msg = "no model is loaded"
            raise RuntimeError(msg)
        model, source = self._model[1], task.input
        inputs = self._inputs.pop(task.ref.key, None) if self._inputs else None
        if source is not None and task.resumed_at:
            job = self._suspended.take(source.key)
            return job or model.resume(params, inputs or self._own(source))
        if inputs is None and source is not None:
            inputs = self._inline.fetch(source, FETCH_DEADLINE_S)
        return model.start(params, inputs)

    def _own(self, offer: Offer) -> Parcel:
        """A snapshot that came in the message, or that we hold ourselves."""
        if any(isinstance(route, InlineRoute) for route in offer.routes):
            return self._inline.fetch(offer, FETCH_DEADLINE_S)
        views = [self._outbox.read(offer.key, i, 0, tensor.nbytes) for i, tensor in enumerate(offer.tensors)]
        buffers = tuple(view for view in views if view is not None)
        if len(buffers) < len(views):
            msg = f"{offer.key} is no longer held here"
            raise FetchError(msg, gone=True)
        return Parcel(offer.tree, offer.tensors, buffers)

    def _between(
        self, ref: TaskRef, job: Job | BatchJob, first: int, snapshot_of: Callable[[], Parcel]
    ) -> Pausing | None:
        """Pause the job, which is between two steps; None: it goes on, and the core is told why."""
        self._pause.discard(ref.key)
        if job.steps_done == first:
            return Pausing(None, first, job.total_steps)
        try:
            snapshot = self._suspended.fitting(snapshot_of())
        except ParcelError as err:
            why = str(err)
            self._post(lambda core: core.pause_refused(ref, why))
            return None
        if self._device == "cpu":  # its tensors are the job's, which may go on with them
            snapshot = copied(snapshot)
        self._suspended.put(ref.key, snapshot, job)
        return Pausing(snapshot, job.steps_done, job.total_steps)

    def _publish(self, ref: TaskRef) -> None:
        result = self._results.pop(ref.key, None)
        if result is None:  # forgotten meanwhile
            self._post(lambda core: core.stopped(ref))
        else:
            self._publish_result(ref, result, None)

    def _publish_result(
        self,
        ref: TaskRef,
        result: Parcel | File,
        seconds: float | None,
        cached: bool | None = None,
        batch: int = 1,
    ) -> None:
        offer: Offer | None = None
        artifact: Artifact | None = None
        if self._stop:
            self._stop.discard(ref.key)  # a cancel that came after the last step
        try:
            if isinstance(result, File):
                artifact = stored(ref, result, self._uploader, lambda: ref.key not in self._stop)
            else:
                offer = self._outbox.offer(ref.key, result)
        except Exception as err:  # boundary: no transport may take the worker down
            log.exception("publishing %s/%s failed", ref.request, ref.stage)
            self._fail(ref, "publish", f"{type(err).__name__}: {err}", retry=True)
            return
        self._post(lambda core: core.published(ref, offer, artifact, seconds, cached, batch))

    def _fail(self, ref: TaskRef, code: str, message: str, *, retry: bool, param: str | None = None) -> None:
        self._stop.discard(ref.key)
        self._post(lambda core: core.compute_failed(ref, code, message, retry=retry, param=param))


def _spread(job: Job, degree: int) -> None:
    if degree and isinstance(job, Spreadable):
        job.spread(degree)


def shm_worker_dir(service_dir: str, worker: str) -> Path:
    """Where a worker's segments live: below the service's folder, so that the agent can sweep up after a crash."""
    return Path(service_dir) / worker
