"""The front desk: accepts, looks up, cancels and hands out; what :class:`disagctl.service.Service` promises the gateway.

Order is everything here. A request is in the store, fsynced, before anybody is told its id, though it is dispatched while it
is being written (docs/decisions/0076); its ending is written after it, and a result is in the store before the ledger lets
its workers forget it.
"""

import asyncio
import hashlib
import logging
import secrets
from collections import Counter, deque
from pathlib import Path
from typing import Any, Final

import msgspec

from disagctl import clock
from disagctl.artifacts import ArtifactStore, MissingArtifact
from disagctl.engine import Engine
from disagctl.events import EventLog
from disagctl.jobs import JobBook, LiveJob, item_id, job_of, new_job_id
from disagctl.service import Content, IdempotencyConflict, ModelInfo, NewJob, QueueFull, Stopping, StorageFull
from disagctl.shapes import shape_of
from disagctl.store import Store, StoreFull, delete_job, finish_item, insert_items, mark_fetched
from disagctl.store.rows import ItemRow, signed
from disagctl.views import JobView
from planner.domain import TaskRef
from planner.run import effects as fx
from planner.run.book import Request
from planner.run.ledger import Ledger
from stages.models.base import OWN_FIELDS
from stages.protocol import Artifact, Offer

log = logging.getLogger(__name__)

RETRY_S: Final = 1.0  # a full disk is looked at this often while a result waits for it
DEFAULT_RETRY_AFTER_S: Final = 5
RECENT: Final = 4_000  # successes remembered for rates and percentiles
EXPIRE_A_TURN: Final = 500  # jobs the janitor removes at most in one go


class FrontDesk:
    """The durable half of the service. ``Head`` adds status, scaling and teardown."""

    def __init__(
        self, name: str, models: list[ModelInfo], store: Store, artifacts: ArtifactStore, engine: Engine,
        events: EventLog, max_queued: int, data_route: tuple[str, str],
    ) -> None:  # fmt: skip
        self.name = name
        self._models = {m.name: m for m in models}
        self._store, self._artifacts, self._engine, self._events = store, artifacts, engine, events
        self._max_queued = max_queued
        self._data_route = data_route  # endpoint and key of the head's data server
        self._ledger: Ledger = engine.ledger
        self.book = JobBook(store.read, engine.ledger)
        self.counts: Counter[str] = Counter()
        self.finished_at: deque[float] = deque(maxlen=RECENT)  # monotonic, of the last successes
        self.latencies_s: deque[float] = deque(maxlen=RECENT)  # acceptance to durable result
        self.stopping = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._acting = False

    # --- accepting --------------------------------------------------------------------------------------------

    def models(self) -> list[ModelInfo]:
        """The models of the spec, in order; the first is the default."""
        return list(self._models.values())

    async def submit(self, job: NewJob) -> JobView:
        """Make it durable and queue it: at once, unless it could be an earlier one or its upload is yet to be stored."""
        if self.stopping:
            raise Stopping
        if len(self._ledger.requests) + len(job.seeds) > self._max_queued:
            raise QueueFull(self._retry_after())
        job_id = new_job_id(self.name, job.kind)
        rows = self._rows(job_id, job)
        key = (job.idempotency_key, job.fingerprint) if job.idempotency_key else None
        live = self._begin(rows, job.params) if key is None and job.upload is None else None
        try:
            if job.upload is not None:
                await asyncio.to_thread(self._artifacts.put_input, job_id, job.upload)
            earlier = await self._store.write(insert_items(rows, key))
        except (StoreFull, OSError) as err:
            if live is not None:
                self._withdraw(live)
            raise StorageFull(str(err)) from err
        if earlier is not None:
            return await self._earlier(job_id, job, *earlier)
        self.counts["accepted"] += len(rows)
        return self.book.view(live or self._begin(rows, job.params))

    def restore(self, rows: list[ItemRow]) -> list[Request]:
        """Take up what an earlier head had accepted; the caller hands the requests to the ledger."""
        by_job: dict[str, list[ItemRow]] = {}
        for job in dict.fromkeys(row.job for row in rows):
            by_job[job] = self.book.load_job(job)
        for job_rows in by_job.values():
            self.book.add(job_rows)
        return [self._request(row) for job_rows in by_job.values() for row in job_rows if row.state == "open"]

    # --- looking up -------------------------------------------------------------------------------------------

    async def job(self, job_id: str) -> JobView | None:
        """One job, finished ones included."""
        found = self.book.get(job_id)
        return self.book.view(found) if found else None

    async def jobs(self, kind: str, *, after: str | None, limit: int, newest_first: bool) -> tuple[list[JobView], bool]:
        """A page of jobs and whether more follow."""
        where, args = "kind=? AND idx=0", [kind]
        order = "DESC" if newest_first else "ASC"
        if after is not None:
            anchor = self.book.get(after)
            if anchor is None:
                return [], False
            sign = "<" if newest_first else ">"
            where += f" AND (created_at, job) {sign} (?, ?)"
            args += [anchor.rows[0].created_at, after]  # type: ignore[list-item]
        rows = self.book.load(f"{where} ORDER BY created_at {order}, job {order} LIMIT ?", (*args, limit + 1))
        found = [self.book.get(row.job) for row in rows[:limit]]
        return [self.book.view(job) for job in found if job is not None], len(rows) > limit

    async def wait(self, job_id: str, *, seen_version: int | None, timeout_s: float) -> JobView | None:
        """Until the job has ended (``seen_version`` None) or has changed since that version, or the time is over."""
        found = self.book.get(job_id)
        if found is None:
            return None
        await self.book.changed(found, seen_version, timeout_s)
        return self.book.view(found)

    async def content(self, item: str) -> Content | None:
        """The file of a succeeded item."""
        row = next(iter(self.book.load("id=? AND state='succeeded'", (item,))), None)
        if row is None or row.mime is None:
            return None
        self._spawn(self._mark_fetched(item))
        if row.file is not None:
            path: Path = self._artifacts.path(row.file)
            return Content(row.mime, row.nbytes, path=path) if path.is_file() else None
        data = self._store.read("SELECT data FROM items WHERE id=?", (item,))[0][0]
        return Content(row.mime, row.nbytes, data=data)

    # --- ending -----------------------------------------------------------------------------------------------

    async def cancel(self, job_id: str) -> JobView | None:
        """Cancel what is not finished."""
        found = self.book.get(job_id)
        if found is None:
            return None
        for row in found.rows:
            if row.state == "open":
                self._ledger.cancel(row.id)
        self._engine.act()
        if job_id in self.book.live:
            await self.book.changed(found, None, 5.0)
        return self.book.view(found)

    async def delete(self, job_id: str) -> bool:
        """Cancel if needed and forget the job and its files."""
        if await self.cancel(job_id) is None:
            return False
        found = self.book.get(job_id)
        if found is not None and found.finished:
            files = [row.file for row in found.rows if row.file]
            await self._store.write(delete_job(job_id))
            self.book.forget(job_id)
            await asyncio.to_thread(self._artifacts.remove, job_id, files)
        return True

    async def expire(self, ttl_s: float | None, max_bytes: float) -> None:
        """Forget jobs that ended longer ago than ``ttl_s``, and the oldest ones while all files exceed ``max_bytes``."""
        limit = clock.wall_s() - ttl_s if ttl_s is not None else 0.0
        rows = self.book.load("idx=0 AND finished_at < ? ORDER BY finished_at LIMIT ?", (limit, EXPIRE_A_TURN))
        total = self._store.read("SELECT COALESCE(SUM(nbytes), 0) FROM items WHERE state='succeeded'")[0][0]
        if not rows and total > max_bytes:
            rows = self.book.load("idx=0 AND state='succeeded' ORDER BY finished_at LIMIT ?", (EXPIRE_A_TURN,))
        for row in rows:
            if row.finished_at is not None and row.finished_at >= limit:
                if total <= max_bytes:
                    break
                total -= row.nbytes
            await self.delete(row.job)
        if rows:
            self.event("expired", "old results were removed (artifacts.ttl, artifacts.max_gib)")

    def publish(self, effect: fx.Publish) -> None:
        """Make the result durable, then tell the ledger."""
        artifact: Artifact = effect.artifact
        if artifact.data or not artifact.nbytes:
            self._succeed(effect, None)
        else:
            self._spawn(self._publish_file(effect))

    def finish(self, effect: fx.Finish) -> None:
        """Make the ending durable."""
        row = self._row(effect.request)
        if row is None:
            return
        ending = msgspec.structs.replace(
            row,
            state=effect.outcome,
            finished_at=clock.wall_s(),
            attempts=effect.attempts,
            code=effect.code,
            message=effect.message,
            param=effect.param,
            evidence=msgspec.json.encode(effect.evidence) if effect.evidence else None,
        )
        if effect.code == "dead_letter":
            tries = "; ".join(f"{a.stage} on {a.worker}: {a.code}" for a in effect.evidence)
            self.event("dead_letter", f"{effect.request}: given up after {tries}")  # no message: it may quote a prompt
        self._write_ending(ending)

    def progress(self, request: str) -> None:
        """The request has moved."""
        self.book.touch(request)

    def event(self, kind: str, why: str) -> None:
        """Something happened that a person may want to know."""
        self._events.add(kind, why)

    def discard_upload(self, ref: TaskRef) -> None:
        """A fenced result may have left an upload."""
        self._artifacts.discard(ref.key)

    # --- inside -----------------------------------------------------------------------------------------------

    def _begin(self, rows: list[ItemRow], params: dict[str, Any]) -> LiveJob:
        """Queue it. Nobody but us knows its id yet, unless its row is on disk."""
        live = self.book.add(rows, params)
        for row in rows:
            request = self._request(row)
            self._engine.watcher.arrived(request, request.submitted_s)
            self._ledger.submit(request)
        self._act_soon()
        return live

    def _withdraw(self, live: LiveJob) -> None:
        """Its row could not be written: it never was. What ends all the same meets no row, and is forgotten then."""
        self.book.withdraw(live)
        for row in live.rows:
            self._ledger.cancel(row.id)
        self._act_soon()

    def _rows(self, job_id: str, job: NewJob) -> list[ItemRow]:
        now = clock.wall_s()
        params = msgspec.json.encode(job.params)
        upload = job_id if job.upload is not None else None
        return [
            ItemRow(item_id(job_id, i), job_id, i, job.kind, job.model, params, seed, upload, job.priority,
                    job.deadline_s, now)
            for i, seed in enumerate(job.seeds)
        ]  # fmt: skip

    def _request(self, row: ItemRow) -> Request:
        info = self._models[row.model]
        offer: Offer | None = None
        if row.upload is not None:
            offer = self._artifacts.input_offer(row.job, *self._data_route)
        payload = row.params[:-1] + (b"," if len(row.params) > 2 else b"") + b'"seed":%d}' % row.seed
        now = self._engine.clock()
        age_s = max(0.0, clock.wall_s() - row.created_at)  # more than nothing when an earlier head accepted it
        deadline_s = None if row.deadline_s is None else now + row.deadline_s - age_s
        shape = shape_of(row.params, info.card)
        return Request(
            row.id, row.model, info.card.stages, payload, 0, now,
            alike=self._alike(row), input=offer, shape=shape, priority=row.priority, deadline_s=deadline_s,
            due_s=self._engine.watcher.due_s(row.model, shape, now - age_s),
        )  # fmt: skip

    def _alike(self, row: ItemRow) -> str:
        """What requests that may share a batch have in common; "" where there are no batches."""
        if self._ledger.limits.batch == 1:
            return ""
        fields: dict[str, Any] = msgspec.json.decode(row.params)
        common = sorted((name, repr(value)) for name, value in fields.items() if name not in OWN_FIELDS)
        return hashlib.blake2b(repr((row.model, common)).encode(), digest_size=8).hexdigest()

    async def _earlier(self, new_id: str, job: NewJob, job_id: str, fingerprint: str) -> JobView:
        if job.upload is not None:
            await asyncio.to_thread(self._artifacts.remove, new_id, [])
        if not secrets.compare_digest(fingerprint, job.fingerprint):
            msg = "this Idempotency-Key was used with another request"
            raise IdempotencyConflict(msg)
        found = self.book.get(job_id)
        if found is None:
            msg = "the job of this Idempotency-Key was deleted"
            raise IdempotencyConflict(msg)
        return self.book.view(found)

    def _retry_after(self) -> int:
        recent = list(self.finished_at)[-100:]
        if len(recent) < 2 or recent[-1] <= recent[0]:
            return DEFAULT_RETRY_AFTER_S
        return max(1, min(600, round((recent[-1] - recent[0]) / len(recent) * 10)))

    def _spawn(self, work: Any) -> None:
        task: asyncio.Task[None] = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (err := task.exception()) is not None:
            log.error("a background task failed", exc_info=err)

    async def _publish_file(self, effect: fx.Publish) -> None:
        item = effect.ref.request
        try:
            file = await self._store_file(effect.ref, item, effect.artifact)
        except MissingArtifact as err:
            self.event("artifact_missing", f"{item}: {err}")
            self._ledger.publish_failed(item, str(err))
            self._engine.act()
            return
        self._succeed(effect, file)

    def _succeed(self, effect: fx.Publish, file: str | None) -> None:
        artifact: Artifact = effect.artifact
        row = self._row(effect.ref.request)
        if row is None:
            return
        ending = msgspec.structs.replace(
            row,
            state="succeeded",
            finished_at=clock.wall_s(),
            attempts=effect.attempts,
            mime=artifact.mime,
            nbytes=artifact.nbytes,
            checksum=signed(artifact.checksum),
            data=artifact.data or None,
            file=file,
        )
        self._write_ending(ending)

    async def _store_file(self, ref: TaskRef, item: str, artifact: Artifact) -> str:
        while True:
            try:
                return await asyncio.to_thread(self._artifacts.publish, ref.key, item, artifact)
            except OSError as err:
                self.event("storage", f"{item}: cannot store the result yet: {err}")
                await asyncio.sleep(RETRY_S)

    def _write_ending(self, row: ItemRow) -> None:
        """Until it is on disk: nobody may see it, and its workers must not forget it, before."""

        def told(result: Any) -> None:
            if isinstance(result, StoreFull):
                self.event("storage", f"{row.id}: cannot record its ending yet: {result}")
                asyncio.get_running_loop().call_later(RETRY_S, self._write_ending, row)
            elif isinstance(result, Exception):
                log.error("the ending of %s was not recorded", row.id, exc_info=result)
            else:
                self._ended(row)

        self._store.put(finish_item(row), told)

    def _ended(self, row: ItemRow) -> None:
        if row.job in self.book.live:  # else it was taken back: nobody may hear of it
            self._count(row)
            self.book.finish(row)
        if row.state == "succeeded":
            self._ledger.published(row.id)
        self._act_soon()

    def _count(self, row: ItemRow) -> None:
        self.counts[row.state] += 1
        if row.state != "succeeded":
            return
        now, request = self._engine.clock(), self._ledger.requests.get(row.id)
        self.finished_at.append(now)
        if request is not None:
            self.latencies_s.append(now - request.submitted_s)
            self._engine.watcher.finished(request, now - request.submitted_s, now)

    def _act_soon(self) -> None:
        """Once for everything that this turn of the loop brings."""
        if not self._acting:
            self._acting = True
            asyncio.get_running_loop().call_soon(self._act)

    def _act(self) -> None:
        self._acting = False
        self._engine.act()

    async def _mark_fetched(self, item: str) -> None:
        try:
            await self._store.write(mark_fetched(item))
        except StoreFull as err:
            log.debug("%s stays unfetched: %s", item, err)

    def _row(self, item: str) -> ItemRow | None:
        live: LiveJob | None = self.book.live.get(item) or self.book.live.get(job_of(item))
        if live is None:
            return None
        first = live.rows[0]
        return first if first.id == item else next((row for row in live.rows if row.id == item), None)
