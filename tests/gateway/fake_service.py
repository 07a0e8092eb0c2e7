"""A Service in memory whose jobs finish when the test says so, or at once."""

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec

from disagctl.service import Content, IdempotencyConflict, ModelInfo, NewJob
from disagctl.views import CostView, EventView, HeadView, ItemView, JobError, JobStatus, JobView, StatusView
from stages.models.base import ModelCard
from stages.models.png import picture

IMAGE = ModelInfo(
    "tiny-image",
    "org/tiny-image",
    ModelCard(
        ("encode", "denoise", "decode"),
        "image",
        "text2image",
        size_multiple=16,
        defaults={"width": 512, "height": 256, "num_inference_steps": 4, "guidance_scale": 3.5},
    ),
    1_700_000_000.0,
)
_VIDEO_DEFAULTS = {"width": 832, "height": 480, "num_frames": 81, "fps": 16, "num_inference_steps": 50}
VIDEO = ModelInfo(
    "tiny-video",
    "org/tiny-video",
    ModelCard(
        ("encode", "denoise", "decode"),
        "video",
        "text2video",
        size_multiple=16,
        frames_multiple=4,
        defaults=_VIDEO_DEFAULTS,
    ),
    1_700_000_001.0,
)
I2V = ModelInfo(
    "tiny-i2v",
    "org/tiny-i2v",
    ModelCard(
        ("encode", "denoise", "decode"),
        "video",
        "image2video",
        size_multiple=16,
        frames_multiple=4,
        needs_image=True,
        defaults=_VIDEO_DEFAULTS,
    ),
    1_700_000_002.0,
)
PNG = picture(8, 8, bytes(8 * 8 * 3))
MP4 = b"\0\0\0\x18ftypmp42" + bytes(64)


class FakeService:
    """``held``: jobs wait for ``finish``. Otherwise they succeed at once."""

    name = "shop"

    def __init__(self, *models: ModelInfo, held: bool = False, tokens: set[str] | None = None) -> None:
        self._models = list(models) or [IMAGE, VIDEO, I2V]
        self.held = held
        self.tokens = tokens
        self.made: list[NewJob] = []
        self.views: dict[str, JobView] = {}
        self.files: dict[str, Content] = {}
        self.cancelled: list[str] = []
        self.scaled: list[tuple[dict[str, int], bool]] = []
        self.stopped: list[bool] = []
        self.refuse: Exception | None = None
        self.ready = (True, "")
        self.clock = 1_700_000_100.0
        self.waiting = asyncio.Event()  # set as soon as anybody waits for a job
        self.ended = asyncio.Event()  # set whenever a job was cancelled
        self._keys: dict[str, tuple[str, str]] = {}
        self._changed: dict[str, asyncio.Event] = {}

    # --- for tests ---

    def finish(self, job_id: str, status: JobStatus = "succeeded", error: JobError | None = None) -> None:
        view = self.views[job_id]
        is_video = view.kind == "video"
        for item in view.items:
            item.status = status
            if status == "succeeded":
                data = MP4 if is_video else PNG
                item.mime, item.nbytes = ("video/mp4" if is_video else "image/png"), len(data)
                self.files[item.id] = Content(item.mime, item.nbytes, data)
        self.change(job_id, status=status, error=error, completed_at=self.clock, progress=100)

    def change(self, job_id: str, **changes: Any) -> None:
        for name, value in changes.items():
            setattr(self.views[job_id], name, value)
        self.views[job_id].version += 1
        self._changed.pop(job_id).set()
        self._changed[job_id] = asyncio.Event()

    # --- Service ---

    def models(self) -> list[ModelInfo]:
        return self._models

    async def submit(self, job: NewJob) -> JobView:
        await asyncio.sleep(0)  # as the real one, which waits for the disk
        if self.refuse is not None:
            raise self.refuse
        if job.idempotency_key is not None:
            job_id, fingerprint = self._keys.get(job.idempotency_key, ("", job.fingerprint))
            if fingerprint != job.fingerprint:
                raise IdempotencyConflict
            if job_id:
                return self.views[job_id]
        self.made.append(job)
        prefix = "img" if job.kind == "image" else "video"
        job_id = f"{prefix}_shop_{len(self.made):08x}"
        if job.idempotency_key is not None:
            self._keys[job.idempotency_key] = (job_id, job.fingerprint)
        items = [ItemView(f"{job_id}-{i}", "queued", seed) for i, seed in enumerate(job.seeds)]
        view = JobView(job_id, job.kind, job.model, "queued", 0, self.clock, job.params, items)
        self.clock += 1
        self.views[job_id] = view
        self._changed[job_id] = asyncio.Event()
        if not self.held:
            self.finish(job_id)
        return msgspec.structs.replace(view)

    async def job(self, job_id: str) -> JobView | None:
        return self.views.get(job_id)

    async def jobs(self, kind: str, *, after: str | None, limit: int, newest_first: bool) -> tuple[list[JobView], bool]:
        found = [view for view in self.views.values() if view.kind == kind]
        if newest_first:
            found.reverse()
        start = [view.id for view in found].index(after) + 1 if after else 0
        return found[start : start + limit], len(found) > start + limit

    async def wait(self, job_id: str, *, seen_version: int | None, timeout_s: float) -> JobView | None:
        def satisfied(view: JobView) -> bool:
            over = view.status in {"succeeded", "failed", "cancelled"}
            return over or (seen_version is not None and view.version > seen_version)

        return await self._until(job_id, satisfied, timeout_s)

    async def _until(self, job_id: str, satisfied: Callable[[JobView], bool], timeout_s: float) -> JobView | None:
        try:
            async with asyncio.timeout(timeout_s):
                while job_id in self.views and not satisfied(self.views[job_id]):
                    self.waiting.set()
                    await self._changed[job_id].wait()
        except TimeoutError:
            pass
        return self.views.get(job_id)

    async def cancel(self, job_id: str) -> JobView | None:
        if job_id not in self.views:
            return None
        self.cancelled.append(job_id)
        if self.views[job_id].status in {"queued", "running"}:
            self.finish(job_id, "cancelled", JobError("cancelled", "cancelled"))
        self.ended.set()
        return self.views[job_id]

    async def delete(self, job_id: str) -> bool:
        if await self.cancel(job_id) is None:
            return False
        del self.views[job_id]
        self._changed.pop(job_id).set()
        return True

    async def content(self, item_id: str) -> Content | None:
        return self.files.get(item_id) or self.files.get(f"{item_id}-0")

    def readiness(self) -> tuple[bool, str]:
        return self.ready

    def status(self) -> StatusView:
        return StatusView(self.name, "ready", "http://127.0.0.1:1", HeadView(1, "here", "0", 1.0))

    def cost(self) -> CostView:
        """Nothing yet."""
        return CostView(self.name, 0.0, 0.0, 0, None, [], [])

    def events(self, after_seq: int) -> list[EventView]:
        return [EventView(float(i), "scaled", "because", i) for i in range(after_seq + 1, 4)]

    async def scale(self, counts: dict[str, int], *, auto: bool) -> None:
        if unknown := counts.keys() - {"encode", "denoise", "decode"}:
            msg = f"no stage {min(unknown)}"
            raise ValueError(msg)
        self.scaled.append((counts, auto))

    async def new_token(self) -> str:
        return "secret-token"

    def token_ok(self, token: str | None) -> bool:
        return self.tokens is None or token in self.tokens

    async def stop(self, *, discard: bool) -> None:
        self.stopped.append(discard)

    def metrics(self) -> bytes:
        return b"disagctl_up 1\n"
