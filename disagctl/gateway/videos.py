"""Videos: asked for now, looked at and fetched later."""

from typing import Any, Final, Literal

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from disagctl.clock import wall_s
from disagctl.gateway.answers import Video, VideoDeleted, VideoError, VideoList, content_response, json_response
from disagctl.gateway.body import checked, content_type, decode_json, read_body, read_form
from disagctl.gateway.checks import clip_seconds
from disagctl.gateway.context import Context
from disagctl.gateway.errors import ApiError, invalid, not_found
from disagctl.gateway.fields import IGNORED, VideoBody
from disagctl.gateway.jobs import FINISHED, item_id, new_job, submit
from disagctl.gateway.uploads import PARAM, picture
from disagctl.views import JobStatus, JobView

_DECODER: Final = msgspec.json.Decoder(VideoBody)
_PAGE, _MAX_PAGE = 20, 100
_STATUS: Final[dict[JobStatus, Literal["queued", "in_progress", "completed", "failed"]]] = {
    "queued": "queued",
    "running": "in_progress",
    "succeeded": "completed",
    "failed": "failed",
    "cancelled": "failed",  # clients know four statuses and take any other for the end
}


class Videos:
    """Handlers of ``/v1/videos``."""

    def __init__(self, ctx: Context) -> None:
        self.ctx = ctx

    async def create(self, request: Request) -> Response:
        """``POST /v1/videos``."""
        with self.ctx.buffers.hold() as held:
            data = await read_body(request, self.ctx.limits, held)
            if content_type(request) == "multipart/form-data":
                body, file = from_form(await read_form(request.headers, data))
            else:
                body, file = decode_json(request, data, _DECODER), None
            view = await submit(self.ctx, new_job(self.ctx, request, "video", body, file))
        return self._answer(view)

    async def get(self, request: Request) -> Response:
        """``GET /v1/videos/{id}``: 200 for failed ones too, with ``error`` saying why."""
        return self._answer(await self._job(request))

    async def list(self, request: Request) -> Response:
        """``GET /v1/videos``."""
        query = request.query_params
        order = query.get("order", "desc")
        if order not in {"asc", "desc"}:
            raise invalid("order", "must be asc or desc")
        limit = query.get("limit", str(_PAGE))
        if not (limit.isascii() and limit.isdigit() and len(limit) <= 3 and 1 <= int(limit) <= _MAX_PAGE):
            raise invalid("limit", f"must be from 1 to {_MAX_PAGE}")
        after = query.get("after") or None
        if after is not None and await self.ctx.service.job(after[:128]) is None:
            raise invalid("after", "there is no such video")
        jobs, more = await self.ctx.service.jobs("video", after=after, limit=int(limit), newest_first=order == "desc")
        data = [self._video(job) for job in jobs]
        return json_response(VideoList(data, data[0].id if data else None, data[-1].id if data else None, more))

    async def content(self, request: Request) -> Response:
        """``GET /v1/videos/{id}/content``."""
        if request.query_params.get("variant", "video") != "video":
            raise invalid("variant", "only video is offered", code="unsupported_value")
        job = await self._job(request)
        if job.status != "succeeded":
            raise ApiError(404, f"video {job.id} is {_STATUS[job.status]}: there is nothing to fetch", code="not_ready")
        return content_response(await self.ctx.service.content(job.id), job.id, "video")

    async def delete(self, request: Request) -> Response:
        """``DELETE /v1/videos/{id}``: stops the work, then forgets it."""
        job = await self._job(request)
        if not await self.ctx.service.delete(job.id):
            raise not_found("video", job.id)
        return json_response(VideoDeleted(job.id))

    async def _job(self, request: Request) -> JobView:
        wanted = item_id(request)
        job = await self.ctx.service.job(wanted)
        if job is None or job.kind != "video":
            raise not_found("video", wanted)
        return job

    def _answer(self, job: JobView) -> Response:
        poll = {} if job.status in FINISHED else {"openai-poll-after-ms": str(self._poll_ms(job))}
        return json_response(self._video(job), headers=poll)

    def _poll_ms(self, job: JobView) -> int:
        """A tenth of the time that is left, going by the time it took so far."""
        least, most = self.ctx.limits.poll_ms
        if job.started_at is None or job.progress < 1:
            return min(max(1000, least), most)
        left_s = max(0.0, wall_s() - job.started_at) * (100 - job.progress) / job.progress
        return int(min(max(100 * left_s, least), most))

    def _video(self, job: JobView) -> Video:
        params = job.params
        step = next((m.card.frames_multiple for m in self.ctx.service.models() if m.name == job.model), 1)
        return Video(
            id=job.id,
            model=job.model,
            status=_STATUS[job.status],
            progress=job.progress,
            prompt=params.get("prompt", ""),
            seconds=clip_seconds(params, step),
            size=f"{params.get('width', 0)}x{params.get('height', 0)}",
            created_at=int(job.created_at),
            seed=job.items[0].seed if job.items else 0,
            num_frames=params.get("num_frames"),
            fps=params.get("fps"),
            completed_at=int(job.completed_at) if job.completed_at is not None else None,
            error=_error(job),
        )


def _error(job: JobView) -> VideoError | None:
    if job.status == "cancelled":
        return VideoError("cancelled", "the request was cancelled")
    return VideoError(job.error.code, job.error.message) if job.error else None


def from_form(parts: dict[str, str | bytes]) -> tuple[VideoBody, bytes | None]:
    """Fields and picture of a form. Strings are coerced to the fields' types. Raises ApiError."""
    fields: dict[str, Any] = {}
    file: bytes | None = None
    for name, value in parts.items():
        if name in IGNORED:
            continue
        if isinstance(value, str):
            # What OpenAI's client makes of {"input_reference": {"image_url": …}}.
            fields[PARAM if name == f"{PARAM}[image_url]" else name] = value
        elif name == PARAM:
            file = picture(value)
        else:
            raise invalid(name[:100], "is no file")
    if file is not None and PARAM in fields:
        raise invalid(PARAM, "given more than once", code="duplicate_parameter")
    fields = {name: value for name, value in fields.items() if value != "" or name == "prompt"}
    return checked(_coerce, fields), file


def _coerce(fields: dict[str, Any]) -> VideoBody:
    return msgspec.convert(fields, VideoBody, strict=False)
