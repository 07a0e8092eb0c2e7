"""Jobs as their users see them: what is unfinished lives here, what is finished is read from the store.

A job has one item a picture (or video); an item is what the ledger calls a request.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final

import msgspec

from disagctl import clock
from disagctl.entropy import token_bytes
from disagctl.store.rows import ITEM_COLUMNS, ItemRow, unsigned
from disagctl.views import ItemView, JobError, JobStatus, JobView
from planner.run.ledger import Ledger

KEEP_FINISHED: Final = 2_000  # finished jobs kept in memory, so that pollers do not read the disk
STAGE_SHARE: Final = {"encode": 5.0, "decode": 10.0}  # percent of a request's progress; denoising has the rest

Read = Callable[[str, tuple[Any, ...]], list[tuple[Any, ...]]]


class LiveJob(msgspec.Struct):
    """A job in memory. ``rows`` in order of idx."""

    id: str
    rows: list[ItemRow]
    params: dict[str, Any]
    version: int = 0
    open: int = -1  # items without an ending
    started_at: float | None = None
    watchers: set["asyncio.Future[None]"] = msgspec.field(default_factory=set)  # of every change
    waiters: set["asyncio.Future[None]"] = msgspec.field(default_factory=set)  # of the end only

    def __post_init__(self) -> None:
        """Count, where the caller has not."""
        if self.open < 0:
            self.open = sum(row.state == "open" for row in self.rows)

    @property
    def finished(self) -> bool:
        """Whether every item has ended."""
        return not self.open


def new_job_id(service: str, kind: str) -> str:
    """The time in milliseconds and 104 random bits behind the service's name: new ones lie together in the store's indices."""
    born = int(clock.wall_s() * 1000).to_bytes(6)
    return f"{'img' if kind == 'image' else 'video'}_{service}_{(born + token_bytes(13)).hex()}"


def item_id(job: str, index: int) -> str:
    """The first item has the job's own id."""
    return job if index == 0 else f"{job}.{index}"


def job_of(item: str) -> str:
    """The job of an item."""
    return item.partition(".")[0]


class JobBook:
    """All jobs. Lives on the event loop."""

    def __init__(self, read: Read, ledger: Ledger) -> None:
        self._read = read
        self._ledger = ledger
        self.live: dict[str, LiveJob] = {}
        self._finished: OrderedDict[str, LiveJob] = OrderedDict()

    def add(self, rows: list[ItemRow], params: dict[str, Any] | None = None) -> LiveJob:
        """An accepted job. ``params``: what the rows hold, at hand where the job is new and all of it open."""
        if params is None:
            job = LiveJob(rows[0].job, rows, msgspec.json.decode(rows[0].params))
        else:
            job = LiveJob(rows[0].job, rows, params, open=len(rows))
        self.live[job.id] = job
        return job

    def touch(self, item: str) -> None:
        """Something about the item changed: wake who waits for changes."""
        job = self.live.get(item) or self.live.get(job_of(item))  # the first item has the job's own id
        if job is not None:
            job.version += 1
            if job.started_at is None:
                job.started_at = clock.wall_s()
            if job.watchers:
                _wake(job.watchers)

    def finish(self, row: ItemRow) -> None:
        """An item has ended, durably: only now may anybody see it."""
        job = self.live.get(row.job)
        if job is None:
            return
        row.data = None  # read from the store when asked for
        job.open -= job.rows[row.idx].state == "open"
        job.rows[row.idx] = row
        job.version += 1
        if job.finished:
            del self.live[job.id]
            self._finished[job.id] = job
            while len(self._finished) > KEEP_FINISHED:
                self._finished.popitem(last=False)
            _wake(job.waiters)
        _wake(job.watchers)

    def withdraw(self, job: LiveJob) -> None:
        """It was not accepted after all."""
        self.live.pop(job.id, None)

    def forget(self, job_id: str) -> None:
        """The job is deleted."""
        self._finished.pop(job_id, None)

    def get(self, job_id: str) -> LiveJob | None:
        """A job, from memory or from the store."""
        found = self.live.get(job_id) or self._finished.get(job_id)
        if found is not None:
            return found
        rows = self.load_job(job_id)
        return LiveJob(job_id, rows, msgspec.json.decode(rows[0].params)) if rows else None

    def load_job(self, job_id: str) -> list[ItemRow]:
        """All rows of a job, in order."""
        return self.load("id=? OR (job=? AND idx>0) ORDER BY idx", (job_id, job_id))

    def load(self, where: str, args: tuple[Any, ...]) -> list[ItemRow]:
        """Rows from the store (without their data)."""
        columns = [c.strip() for c in ITEM_COLUMNS.split(",")]
        found = self._read(f"SELECT {ITEM_COLUMNS} FROM items WHERE {where}", args)  # noqa: S608  # ours
        return [ItemRow(**dict(zip(columns, row, strict=True))) for row in found]

    async def changed(self, job: LiveJob, seen_version: int | None, timeout_s: float) -> None:
        """Until the job has ended or (with a version) changed, or the time is over."""
        loop = asyncio.get_running_loop()
        end = loop.time() + timeout_s
        line = job.waiters if seen_version is None else job.watchers
        while not job.finished and (seen_version is None or job.version <= seen_version):
            left = end - loop.time()
            if left <= 0:
                return
            future: asyncio.Future[None] = loop.create_future()
            line.add(future)
            timer = loop.call_later(left, _resolve, future)
            try:
                await future
            finally:
                timer.cancel()
                line.discard(future)

    # --- views ------------------------------------------------------------------------------------------------

    def view(self, job: LiveJob) -> JobView:
        """The job as it stands."""
        rows, first = job.rows, job.rows[0]
        status = self._status(job)
        items = [self._item(first, status)] if len(rows) == 1 else [self._item(row) for row in rows]
        request = failed = completed_at = None
        if job.open:
            request = self._ledger.requests.get(next(r for r in rows if r.state == "open").id)
        elif len(rows) == 1:
            completed_at = first.finished_at
        else:
            completed_at = max((r.finished_at for r in rows if r.finished_at is not None), default=None)
        if status != "succeeded" and job.open < len(rows):
            failed = next((r for r in rows if r.state in ("failed", "cancelled")), None)
        return JobView(
            id=job.id,
            kind=first.kind,  # type: ignore[arg-type]  # written by us
            model=first.model,
            status=status,
            progress=self._percent(job, status),
            created_at=first.created_at,
            params=job.params,
            items=items,
            stage=request.stages[request.at] if request else None,
            step=request.step if request else 0,
            steps=request.steps if request else 0,
            degree=self._ledger.degree(request.lease) if request else None,
            started_at=job.started_at,
            completed_at=completed_at,
            error=JobError(failed.code or "failed", failed.message or "", failed.param) if failed else None,
            version=job.version,
        )

    def _status(self, job: LiveJob) -> JobStatus:
        if len(job.rows) == 1:
            state = job.rows[0].state
            return state if state != "open" else "running" if self._running(job.rows[0]) else "queued"  # type: ignore[return-value]
        states = {row.state for row in job.rows}
        if job.finished:
            return "failed" if "failed" in states else "cancelled" if "cancelled" in states else "succeeded"
        if states != {"open"} or any(self._running(row) for row in job.rows):
            return "running"
        return "queued"

    def _running(self, row: ItemRow) -> bool:
        request = self._ledger.requests.get(row.id)
        return request is not None and (request.started_s is not None or request.at > 0)

    def _item(self, row: ItemRow, only: JobStatus | None = None) -> ItemView:
        """``only``: the state of the job, where it has no other item."""
        state: JobStatus = only or (row.state if row.state != "open" else "running" if self._running(row) else "queued")  # type: ignore[assignment]
        checksum = f"{unsigned(row.checksum):016x}" if row.checksum is not None else None
        return ItemView(row.id, state, row.seed, row.mime, row.nbytes, checksum, row.attempts)

    def _percent(self, job: LiveJob, status: JobStatus) -> int:
        if status in ("succeeded", "queued"):
            return 100 if status == "succeeded" else 0
        return int(sum(map(self._progress, job.rows)) / len(job.rows))

    def _progress(self, row: ItemRow) -> float:
        if row.state == "succeeded":
            return 100.0
        request = self._ledger.requests.get(row.id)
        if request is None:
            return 0.0
        shares = _shares(request.stages)
        done = sum(shares[: request.at])
        part = request.step / request.steps if request.steps else 0.0
        return min(99.0, done + shares[request.at] * part)


@lru_cache(maxsize=64)
def _shares(stages: tuple[str, ...]) -> list[float]:
    rest = 100.0 - sum(STAGE_SHARE.get(stage, 0.0) for stage in stages)
    others = sum(stage not in STAGE_SHARE for stage in stages)
    return [STAGE_SHARE.get(stage, rest / max(1, others)) for stage in stages]


def _wake(futures: set["asyncio.Future[None]"]) -> None:
    for future in futures:
        _resolve(future)


def _resolve(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)
