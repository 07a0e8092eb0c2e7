"""Administration, for the CLI: on a Unix socket that only the owner can open, so it asks for no token."""

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from disagctl.gateway.answers import content_response, json_response
from disagctl.gateway.app import DEFAULT_LIMITS, build
from disagctl.gateway.body import decode_json, read_body
from disagctl.gateway.checks import Kind, choose_model
from disagctl.gateway.context import Context
from disagctl.gateway.errors import ApiError, invalid, not_found
from disagctl.gateway.fields import AdminImageBody, AdminVideoBody
from disagctl.gateway.jobs import item_id, new_job, submit
from disagctl.gateway.limits import Limits
from disagctl.service import Service
from disagctl.views import SCHEMA_VERSION, JobView

MAX_WAIT_S: Final = 30.0
PREFIX: Final = "/admin/v1"
_INTERVAL_S: Final = (0.05, 3600.0)


class Peek(msgspec.Struct):
    """What decides how the rest of a request is read."""

    kind: Literal["image", "video"] | None = None
    model: str | None = None


class Scale(msgspec.Struct, forbid_unknown_fields=True):
    """Pin these stages' worker counts; with ``auto`` hand them (all, if none is named) back to the policy."""

    counts: dict[str, Annotated[int, Meta(ge=0, le=4096)]] = {}
    auto: bool = False


class Stop(msgspec.Struct, forbid_unknown_fields=True):
    """``discard``: throw unfinished requests and unfetched files away."""

    discard: bool = False


_DECODERS: Final[dict[Kind, Any]] = {
    "image": msgspec.json.Decoder(AdminImageBody),
    "video": msgspec.json.Decoder(AdminVideoBody),
}
_PEEK, _SCALE, _STOP = msgspec.json.Decoder(Peek), msgspec.json.Decoder(Scale), msgspec.json.Decoder(Stop)


def admin_app(service: Service, *, limits: Limits = DEFAULT_LIMITS) -> Starlette:
    """The app behind the socket."""
    admin = Admin(Context(service, limits))
    table = (
        ("GET", "/status", admin.status),
        ("GET", "/status/stream", admin.stream),
        ("GET", "/events", admin.events),
        ("GET", "/models", admin.models),
        ("POST", "/requests", admin.submit),
        ("GET", "/requests/{id}", admin.job),
        ("DELETE", "/requests/{id}", admin.cancel),
        ("GET", "/requests/{id}/content", admin.content),
        ("POST", "/scale", admin.scale),
        ("POST", "/token", admin.token),
        ("GET", "/cost", admin.cost),
        ("POST", "/stop", admin.stop),
    )
    return build([Route(PREFIX + path, handler, methods=[method]) for method, path, handler in table])


class Admin:
    """Handlers of ``/admin/v1``."""

    def __init__(self, ctx: Context) -> None:
        self.ctx = ctx
        self.service = ctx.service

    async def status(self, request: Request) -> Response:
        """StatusView."""
        return json_response(self.service.status())

    async def stream(self, request: Request) -> Response:
        """StatusViews, one a line, until the client goes."""
        pause_s = _number(request, "interval_s", 1.0, *_INTERVAL_S)

        async def lines() -> AsyncIterator[bytes]:
            while True:
                yield msgspec.json.encode(self.service.status()) + b"\n"
                await asyncio.sleep(pause_s)

        return StreamingResponse(lines(), media_type="application/x-ndjson")

    async def events(self, request: Request) -> Response:
        """Events newer than ``after``."""
        after = int(_number(request, "after", 0, 0, 2**53))
        return _document(events=self.service.events(after))

    async def models(self, request: Request) -> Response:
        """ModelInfos with their cards."""
        return _document(models=self.service.models())

    async def submit(self, request: Request) -> Response:
        """Accept a request; the answer does not wait for its result. ``kind`` follows from the model."""
        with self.ctx.buffers.hold() as held:
            data = await read_body(request, self.ctx.limits, held)
            peek = decode_json(request, data, _PEEK)
            kind = peek.kind or _kind(choose_model(self.service.models(), peek.model).card.modality)
            body = decode_json(request, data, _DECODERS[kind])
            view = await submit(self.ctx, new_job(self.ctx, request, kind, body))
        return json_response(view)

    async def cost(self, request: Request) -> Response:
        """CostView."""
        return json_response(self.service.cost())

    async def job(self, request: Request) -> Response:
        """JobView, now or (``wait_s``) once it is finished, or (``version``) once it is newer than that."""
        wanted = item_id(request)
        wait_s = _number(request, "wait_s", 0, 0, MAX_WAIT_S)
        seen = int(_number(request, "version", -1, 0, 2**53))
        view = None
        if wait_s:
            view = await self.service.wait(wanted, seen_version=seen if seen >= 0 else None, timeout_s=wait_s)
        return _found(view or await self.service.job(wanted), wanted)

    async def cancel(self, request: Request) -> Response:
        """JobView after cancelling what was not finished."""
        wanted = item_id(request)
        return _found(await self.service.cancel(wanted), wanted)

    async def content(self, request: Request) -> Response:
        """The file of an item, or of a job's first item."""
        wanted = item_id(request)
        return content_response(await self.service.content(wanted), wanted, "")

    async def scale(self, request: Request) -> Response:
        """Store a wish for worker counts."""
        wish = await self._body(request, _SCALE)
        if not wish.counts and not wish.auto:
            raise invalid("counts", "name a stage and a number, or set auto")
        try:
            await self.service.scale(wish.counts, auto=wish.auto)
        except ValueError as err:
            raise invalid("counts", str(err)) from None
        return _document(counts=wish.counts, auto=wish.auto)

    async def token(self, request: Request) -> Response:
        """Mint a bearer token. It is shown this once."""
        return _document(token=await self.service.new_token())

    async def stop(self, request: Request) -> Response:
        """Begin teardown."""
        wish = await self._body(request, _STOP)
        await self.service.stop(discard=wish.discard)
        return _document(stopping=True)

    async def _body(self, request: Request, decoder: "msgspec.json.Decoder[Any]") -> Any:
        with self.ctx.buffers.hold() as held:
            return decode_json(request, await read_body(request, self.ctx.limits, held) or b"{}", decoder)


def _kind(modality: str) -> Kind:
    return "video" if modality == "video" else "image"


def _document(**fields: Any) -> Response:
    return json_response({"schema_version": SCHEMA_VERSION, **fields})


def _found(view: JobView | None, wanted: str) -> Response:
    if view is None:
        raise not_found("request", wanted)
    return json_response(view)


def _number(request: Request, name: str, default: float, least: float, most: float) -> float:
    """A query parameter, brought into its range."""
    text = request.query_params.get(name)
    if not text:
        return default
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if value != value:  # noqa: PLR0124  the one test for NaN
        raise ApiError(400, f"{name}: must be a number", code="invalid_value", param=name)
    return min(max(value, least), most)
