"""Pictures: asked for and waited for in one request."""

import asyncio
from typing import Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from disagctl.gateway.answers import ImageItem, ImagesAnswer, content_response, expired, json_response
from disagctl.gateway.body import decode_json, read_body
from disagctl.gateway.context import Context
from disagctl.gateway.errors import job_failed
from disagctl.gateway.fields import ImageBody
from disagctl.gateway.jobs import finished, item_id, new_job, submit
from disagctl.views import JobView

_DECODER: Final = msgspec.json.Decoder(ImageBody)
_LARGE: Final = 1 << 20  # bytes; smaller files are read faster than a thread is asked to


class Images:
    """Handlers of ``/v1/images``."""

    def __init__(self, ctx: Context) -> None:
        self.ctx = ctx

    async def generate(self, request: Request) -> Response:
        """``POST /v1/images/generations``."""
        job, keep, as_url = await self._accept(request)
        job = await finished(self.ctx, request, job, keep=keep)
        if job.status != "succeeded":
            raise job_failed(job)
        data = [await self._item(request, job, i, as_url=as_url) for i in range(len(job.items))]
        width, height = job.params.get("width"), job.params.get("height")
        answer = ImagesAnswer(
            created=int(job.completed_at or job.created_at),
            id=job.id,
            model=job.model,
            data=data,
            output_format=job.params.get("output_format", "png"),
            size=f"{width}x{height}" if width and height else None,
        )
        return json_response(answer)

    async def content(self, request: Request) -> Response:
        """``GET /v1/images/{id}/content``."""
        wanted = item_id(request)
        return content_response(await self.ctx.service.content(wanted), wanted, "image")

    async def _accept(self, request: Request) -> tuple[JobView, bool, bool]:
        """The job, whether it outlives the client, and whether URLs are wanted. The body is let go on return."""
        with self.ctx.buffers.hold() as held:
            body = decode_json(request, await read_body(request, self.ctx.limits, held), _DECODER)
            job = new_job(self.ctx, request, "image", body)
            view = await submit(self.ctx, job)
            return view, job.idempotency_key is not None, body.response_format == "url"

    async def _item(self, request: Request, job: JobView, index: int, *, as_url: bool) -> ImageItem:
        item = job.items[index]
        if as_url:
            return ImageItem(item.seed, url=f"{origin(request)}/v1/images/{item.id}/content")
        content = await self.ctx.service.content(item.id)
        data = None if content is None else content.data
        if content is not None and content.path is not None:
            read = content.path.read_bytes
            try:
                data = read() if content.nbytes <= _LARGE else await asyncio.to_thread(read)
            except FileNotFoundError:  # deleted since
                data = None
        if data is None:
            raise expired(item.id)
        return ImageItem(item.seed, b64_json=data)


def origin(request: Request) -> str:
    """Where the client found us, as it said itself."""
    return f"{request.url.scheme}://{request.url.netloc}"
