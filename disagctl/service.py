"""What the gateway asks of the head: accept, look up, wait, cancel, fetch. A protocol, so that either can be tested alone."""

from pathlib import Path
from typing import Any, Literal, Protocol

import msgspec

from disagctl.views import CostView, EventView, JobView, StatusView
from stages.models.base import ModelCard

MAX_ITEMS = 10  # pictures in one request, as OpenAI has it


class QueueFull(Exception):
    """No room: try again in ``retry_after_s`` seconds (HTTP 429)."""

    def __init__(self, retry_after_s: int) -> None:
        super().__init__(f"the queue is full; try again in {retry_after_s} s")
        self.retry_after_s = retry_after_s


class StorageFull(Exception):
    """The request could not be made durable, so it was not accepted (HTTP 507)."""


class IdempotencyConflict(Exception):
    """The key was used with another body (HTTP 409)."""


class Stopping(Exception):
    """The service is going down and accepts nothing more (HTTP 503)."""


class NewJob(msgspec.Struct):
    """A validated request. ``params``: JSON-able fields common to all items; item i gets ``seeds[i]``."""

    kind: Literal["image", "video"]
    model: str
    params: dict[str, Any]
    seeds: list[int]
    upload: bytes | None = None  # input_reference: the bytes of a picture
    idempotency_key: str | None = None
    fingerprint: str = ""  # hash of the body, compared when the key is used again
    deadline_s: float | None = None
    priority: int = 0


class ModelInfo(msgspec.Struct):
    """A model of the service."""

    name: str
    id: str
    card: ModelCard
    created_at: float
    priority: int = 0


class Content(msgspec.Struct):
    """A finished file: either in memory or on disk."""

    mime: str
    nbytes: int
    data: bytes | None = None
    path: Path | None = None


class Service(Protocol):
    """The head, as the gateway sees it. All methods run on the head's event loop."""

    name: str

    def models(self) -> list[ModelInfo]:
        """The models of the spec, in order; the first is the default."""

    async def submit(self, job: NewJob) -> JobView:
        """Make it durable and queue it. The view is returned only after the rows are fsynced.

        The same idempotency key and fingerprint returns the earlier job. Raises QueueFull, StorageFull,
        IdempotencyConflict, Stopping.
        """

    async def job(self, job_id: str) -> JobView | None:
        """One job, finished ones included."""

    async def jobs(self, kind: str, *, after: str | None, limit: int, newest_first: bool) -> tuple[list[JobView], bool]:
        """A page of jobs and whether more follow."""

    async def wait(self, job_id: str, *, seen_version: int | None, timeout_s: float) -> JobView | None:
        """Until the job is finished (``seen_version`` None) or has changed since that version, or the time is over."""

    async def cancel(self, job_id: str) -> JobView | None:
        """Cancel what is not finished. Workers stop at the next step boundary."""

    async def delete(self, job_id: str) -> bool:
        """Cancel if needed and forget the job and its files. False: there is none."""

    async def content(self, item_id: str) -> Content | None:
        """The file of a succeeded item. A job id stands for its first item."""

    def readiness(self) -> tuple[bool, str]:
        """Whether every stage has a ready worker and there is room in the queue; otherwise why not."""

    def status(self) -> StatusView:
        """Everything there is to show."""

    def cost(self) -> CostView:
        """What was spent so far."""

    def events(self, after_seq: int) -> list[EventView]:
        """Events newer than ``after_seq``, oldest first."""

    async def scale(self, counts: dict[str, int], *, auto: bool) -> None:
        """Pin these stages' worker counts, or hand them back to the policy. Raises ValueError for what cannot be."""

    async def new_token(self) -> str:
        """Mint a bearer token for inference; only its hash is kept."""

    def token_ok(self, token: str | None) -> bool:
        """Whether this bearer may use the inference API (None: no header was sent)."""

    async def stop(self, *, discard: bool) -> None:
        """Begin teardown: end agents and workers, then the head itself. Returns once it has begun."""

    def metrics(self) -> bytes:
        """Prometheus text."""
