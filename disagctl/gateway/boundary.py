"""The outermost layer: a request id on every answer, and the one place where an unexpected exception ends as a 500."""

import asyncio
import logging
import re
import traceback
from typing import Final

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from disagctl.entropy import token_bytes
from disagctl.gateway.errors import ApiError, interrupted

log = logging.getLogger(__name__)
_CLIENTS_ID: Final = re.compile(rb"[A-Za-z0-9._-]{1,64}")
_NOSNIFF: Final = (b"x-content-type-options", b"nosniff")


class StreamBrokenError(Exception):
    """An answer broke off after its head was sent: the connection has to go."""


class Boundary:
    """Pure ASGI middleware. A client's own X-Request-Id is kept when it is short and plain."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request_id = _request_id(scope)
        started = False

        async def tagged(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                message["headers"] = [*message["headers"], (b"x-request-id", request_id), _NOSNIFF]
            await send(message)

        try:
            await self.app(scope, receive, tagged)
        except ClientDisconnect:
            return  # nobody is left to answer
        except asyncio.CancelledError:
            if not started:
                await interrupted().response()(scope, receive, tagged)
            raise
        except Exception as exc:  # noqa: BLE001  whatever it is, the client gets a 500 and the next request is served
            name = request_id.decode()
            _report(name, scope, exc)
            if started:
                raise StreamBrokenError from None
            error = ApiError(500, f"unexpected error; the log has more under request id {name}", code="internal_error")
            await error.response()(scope, receive, tagged)


def _request_id(scope: Scope) -> bytes:
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _CLIENTS_ID.fullmatch(value):
            return bytes(value)
    return b"req_" + token_bytes(12).hex().encode()


def _report(request_id: str, scope: Scope, exc: Exception) -> None:
    """Log where it happened. Not the exception's text: it may quote the prompt."""
    frames = traceback.extract_tb(exc.__traceback__)[-8:]
    where = " < ".join(f"{frame.filename}:{frame.lineno} {frame.name}" for frame in reversed(frames))
    # The route's pattern, not the path: a client chooses the path.
    route = getattr(scope.get("route"), "path", "?")
    log.error("%s %s %s: %s at %s", request_id, scope["method"], route, type(exc).__name__, where)
