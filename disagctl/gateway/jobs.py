"""From a checked request to an accepted job, and waiting for it."""

import asyncio
import hashlib
import re
from contextlib import suppress
from typing import Any, Final

import msgspec
from starlette.requests import ClientDisconnect, Request

from disagctl.entropy import token_bytes
from disagctl.gateway.checks import Checked, Kind, check, check_upload, choose_model
from disagctl.gateway.context import Context
from disagctl.gateway.errors import ApiError, invalid, refusal
from disagctl.gateway.fields import MAX_SEED, ImageBody, VideoBody
from disagctl.gateway.uploads import from_json
from disagctl.service import IdempotencyConflict, NewJob, QueueFull, Stopping, StorageFull
from disagctl.views import JobView

FINISHED: Final = frozenset({"succeeded", "failed", "cancelled"})
MAX_DEADLINE_MS: Final = 7 * 86_400_000
_KEY: Final = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]{0,253}[\x21-\x7e])?")
_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
_DRAWN_SEEDS: Final = 1 << 53  # a drawn seed survives clients whose only numbers are doubles


def item_id(request: Request) -> str:
    """The id in the path. Raises ApiError (404) for what cannot be one, before anybody looks it up."""
    text: str = request.path_params["id"]
    if not _ID.fullmatch(text):
        raise ApiError(404, "that is not an id of this service", code="not_found")
    return text


def new_job(
    ctx: Context, request: Request, kind: Kind, body: ImageBody | VideoBody, file: bytes | None = None
) -> NewJob:
    """The job that ``body`` asks for. ``file``: an uploaded picture, already checked. Raises ApiError."""
    found = check(body, choose_model(ctx.service.models(), body.model, kind))
    upload = from_json(body.input_reference) if file is None and body.input_reference is not None else file
    check_upload(found.model, upload)
    key = _idempotency_key(request)
    return NewJob(
        kind=kind,
        model=found.model.name,
        params=found.params,
        seeds=_seeds(body.seed, body.n or 1),
        upload=upload,
        idempotency_key=key,
        fingerprint=_fingerprint(kind, found, body, upload) if key else "",
        deadline_s=_deadline_s(request),
        priority=found.model.priority,
    )


async def submit(ctx: Context, job: NewJob) -> JobView:
    """Have it accepted. Raises ApiError."""
    try:
        return await ctx.service.submit(job)
    except (QueueFull, StorageFull, Stopping, IdempotencyConflict) as err:
        raise refusal(err) from None


async def finished(ctx: Context, request: Request, job: JobView, *, keep: bool) -> JobView:
    """Wait until the job is finished. Unless ``keep``, a client that goes away takes the job with it."""
    if job.status in FINISHED:
        return job
    gone = asyncio.ensure_future(_disconnected(request))
    try:
        while job.status not in FINISHED:
            job = await _next(ctx, job, gone)
    except ClientDisconnect:
        if not keep:
            await ctx.service.cancel(job.id)
        raise
    finally:
        gone.cancel()
    return job


async def _next(ctx: Context, job: JobView, gone: "asyncio.Future[None]") -> JobView:
    """The job a while later. Raises ClientDisconnect; ApiError when the job was deleted meanwhile."""
    service = ctx.service
    waiting = asyncio.ensure_future(service.wait(job.id, seen_version=None, timeout_s=ctx.limits.wait_slice_s))
    try:
        await asyncio.wait((waiting, gone), return_when=asyncio.FIRST_COMPLETED)
        if not waiting.done():
            raise ClientDisconnect
        later = waiting.result() or await service.job(job.id)
    finally:
        waiting.cancel()
    if later is None:
        raise ApiError(409, f"request {job.id} was deleted", code="cancelled", type="request_cancelled")
    return later


async def _disconnected(request: Request) -> None:
    with suppress(ClientDisconnect):
        while (await request.receive())["type"] != "http.disconnect":
            pass


def _header(request: Request, name: bytes) -> str | None:
    """The first of that name, in lower case. Starlette's mapping takes long over one that is missing."""
    return next((value.decode("latin-1") for found, value in request.scope["headers"] if found == name), None)


def _idempotency_key(request: Request) -> str | None:
    key = _header(request, b"idempotency-key")
    if key is not None and not _KEY.fullmatch(key):
        raise invalid("Idempotency-Key", "must be 1 to 255 printable ASCII characters")
    return key


def _deadline_s(request: Request) -> float | None:
    text = _header(request, b"x-deadline-ms")
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 10 and 0 < int(text) <= MAX_DEADLINE_MS):
        raise invalid("X-Deadline-Ms", f"must be a whole number from 1 to {MAX_DEADLINE_MS}")
    return int(text) / 1000


def _seeds(first: int | None, count: int) -> list[int]:
    start = int.from_bytes(token_bytes(8)) % _DRAWN_SEEDS if first is None else first
    return [(start + i) & MAX_SEED for i in range(count)]


def _fingerprint(kind: Kind, found: Checked, body: ImageBody | VideoBody, upload: bytes | None) -> str:
    """Equal for equal requests however they were spelled; a seed that we drew is no part of it."""
    picture = hashlib.sha256(upload).hexdigest() if upload is not None else None
    answer = body.response_format if isinstance(body, ImageBody) else None
    canonical: list[Any] = [kind, found.model.name, found.given, body.seed, body.n or 1, picture, answer]
    return hashlib.sha256(msgspec.json.encode(canonical, order="sorted")).hexdigest()
