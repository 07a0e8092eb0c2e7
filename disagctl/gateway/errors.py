"""Errors in OpenAI's form: ``{"error": {"message", "type", "code", "param"}}``."""

from typing import Final

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from disagctl.service import IdempotencyConflict, QueueFull, Stopping, StorageFull
from disagctl.views import JobView

JSON: Final = "application/json"
# Clients that retry by habit (OpenAI's does, on 409 and every 5xx) are told when that would only repeat the work.
FINAL: Final = {"x-should-retry": "false"}
_TYPES: Final = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
_RETRY_S: Final = "5"


class ErrorBody(msgspec.Struct):
    """What went wrong. ``param``: the field at fault."""

    message: str
    type: str
    code: str | None = None
    param: str | None = None


class ErrorAnswer(msgspec.Struct):
    """The body of every answer from 400 up."""

    error: ErrorBody


class ApiError(Exception):
    """An answer other than success. The message is for the client: no internals, no secrets."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str,
        param: str | None = None,
        type: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        kind = type or _TYPES.get(status) or ("invalid_request_error" if status < 500 else "server_error")
        self.body = ErrorBody(message, kind, code, param)
        self.headers = headers or {}

    def response(self) -> Response:
        """As HTTP."""
        data = msgspec.json.encode(ErrorAnswer(self.body))
        return Response(data, self.status, headers=self.headers, media_type=JSON)


def invalid(param: str | None, message: str, *, code: str = "invalid_value") -> ApiError:
    """400: the request is at fault, and ``param`` is where."""
    return ApiError(400, f"{param}: {message}" if param else message, code=code, param=param)


def not_found(what: str, item_id: str) -> ApiError:
    """404: there is no such thing."""
    return ApiError(404, f"there is no {what} {item_id!r}", code="not_found")


def refusal(err: Exception) -> ApiError:
    """The answer to what ``Service.submit`` raises. Anything else is raised again."""
    match err:
        case QueueFull():
            wait = {"retry-after": str(max(1, err.retry_after_s))}
            return ApiError(429, str(err), code="queue_full", headers=wait)
        case StorageFull():
            message = "no room to store the request: it was not accepted"
            return ApiError(507, message, code="storage_full", headers=FINAL)
        case Stopping():
            wait = {"retry-after": _RETRY_S}
            return ApiError(503, "the service is stopping and takes no more requests", code="stopping", headers=wait)
        case IdempotencyConflict():
            message = "this Idempotency-Key was used before with another body"
            return ApiError(409, message, code="idempotency_conflict", type="idempotency_error", headers=FINAL)
    raise err


def interrupted() -> ApiError:
    """503: the head goes down while the client waits. What was accepted stays accepted."""
    message = "the head is shutting down; an accepted request goes on when it is back"
    return ApiError(503, message, code="stopping", headers={"retry-after": _RETRY_S})


def job_failed(job: JobView) -> ApiError:
    """The answer to whoever waited for a job that did not succeed.

    bad_request → 400 with the param, a passed deadline → 504, cancelled → 409 (something else than the waiting client
    ended it), everything else, dead letters first of all → 500.
    """
    code = "cancelled" if job.status == "cancelled" else job.error.code if job.error else "failed"
    message = job.error.message if job.error else f"request {job.id} {job.status}"
    if code == "bad_request":
        return ApiError(400, message, code=code, param=job.error.param if job.error else None)
    if code == "cancelled":
        return ApiError(409, f"request {job.id} was cancelled", code=code, type="request_cancelled", headers=FINAL)
    return ApiError(504 if code.startswith("deadline") else 500, message, code=code, headers=FINAL)


async def on_api_error(request: Request, exc: Exception) -> Response:
    """Starlette's handler for ApiError."""
    assert isinstance(exc, ApiError)  # noqa: S101  registered for this class only
    return exc.response()


async def on_http_exception(request: Request, exc: Exception) -> Response:
    """Starlette's handler for its own 404 and 405."""
    assert isinstance(exc, HTTPException)  # noqa: S101  registered for this class only
    path, method = request.scope["path"][:200], request.method
    if exc.status_code == 404:
        error = ApiError(404, f"there is nothing at {path}", code="unknown_url")
    elif exc.status_code == 405:
        error = ApiError(405, f"{path} does not take {method}", code="method_not_allowed", headers=_allowed(request))
    else:
        error = ApiError(exc.status_code, exc.detail, code="http_error", headers=dict(exc.headers or {}))
    return error.response()


def _allowed(request: Request) -> dict[str, str]:
    """All methods of the path: it has a route for each, and Starlette knows only those of the first."""
    routes = [route for route in request.app.routes if isinstance(route, Route)]
    match = [route.methods or set() for route in routes if route.path_regex.match(request.scope["path"])]
    return {"allow": ", ".join(sorted(set[str]().union(*match)))}
