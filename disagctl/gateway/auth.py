"""Who may ask."""

from collections.abc import Awaitable, Callable
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from disagctl.gateway.errors import ApiError
from disagctl.service import Service

Handler = Callable[[Request], Awaitable[Response]]
MAX_TOKEN: Final = 512
_SCHEME: Final = "bearer "


def bearer(request: Request) -> str | None:
    """The bearer token sent, None without an Authorization header. Anything that is no bearer token is an empty one."""
    header = request.headers.get("authorization")
    if header is None:
        return None
    if header[: len(_SCHEME)].lower() != _SCHEME or len(header) > MAX_TOKEN:
        return ""
    return header[len(_SCHEME) :].strip()


def guard(service: Service, handler: Handler) -> Handler:
    """Let only those through whom the service accepts."""

    async def guarded(request: Request) -> Response:
        token = bearer(request)
        if not service.token_ok(token):
            headers = {"www-authenticate": "Bearer"}
            raise ApiError(401, "a valid bearer token is required", code="invalid_api_key", headers=headers)
        # A service on loopback may be open to anyone on this machine; web pages that its browser shows are not anyone.
        # Browsers send Origin with whatever changes something, and a page cannot make them send Authorization unasked.
        if token is None and "origin" in request.headers:
            raise ApiError(403, "requests from web pages need a bearer token", code="origin_refused")
        return await handler(request)

    return guarded
