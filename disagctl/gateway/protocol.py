"""uvicorn's HTTP protocol with bounds on what a client may send before, while and after it asks for something.

uvicorn itself waits for ever for the end of a request's head, however large it grows. The deadlines here cost nothing a
request: connections note when a phase began, and one sweep a second looks at all of them.
"""

import asyncio
import logging
from typing import Any, Final, Literal, NoReturn

from starlette.responses import Response
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.server import ServerState

from disagctl.entropy import token_bytes
from disagctl.gateway.errors import ApiError
from disagctl.gateway.limits import Limits

# uvicorn warns of every malformed request: a log that anybody can fill. What matters is logged by the boundary.
_QUIET: Final = logging.getLogger("disagctl.gateway.uvicorn")
_QUIET.setLevel(logging.CRITICAL)
_LEAST_RATE: Final = 1024  # bytes a second that a reader has to take
_LARGE_HEAD: Final = "the head of the request is too large"
_DISCARD: Final = 4  # times the body limit: what we let a client go on sending after it was refused


class Gate:
    """What the connections of one server share: the limits, and who of them may be let go for a new one."""

    def __init__(self, limits: Limits, max_connections: int) -> None:
        self.limits = limits
        self.max_connections = max_connections
        # Connections that wait for a request or its head, the oldest first.
        self.waiting: dict[GuardedProtocol, None] = {}


class TooMuchError(Exception):
    """Raised inside the parser to stop it."""


class GuardedProtocol(HttpToolsProtocol):
    """One connection."""

    def __init__(self, gate: Gate, config: Config, state: ServerState, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(config, state, {}, loop)
        self.gate = gate
        self.phase: Literal["idle", "head", "body", "answer"] = "head"
        self.since = 0.0
        self.logger = _QUIET
        self._silent = 0  # bytes since the parser last told us of something
        self._discarded = 0
        self._stalled: tuple[float, int] | None = None
        self._too_much = self._refused = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take the connection; if there are too many, the one that waits longest for its request goes."""
        super().connection_made(transport)
        self._enter("head")
        if len(self.connections) > self.gate.max_connections:
            oldest = next(iter(self.gate.waiting))
            del self.gate.waiting[oldest]
            if oldest is self:
                self._refuse(503, "too many connections", code="overloaded")
            else:
                oldest.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        self.gate.waiting.pop(self, None)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse. What does not become a head or a piece of body soon is a header, or a trailer, without end."""
        if self._refused:
            return
        self._silent += len(data)
        super().data_received(data)
        if self.phase in {"head", "body"} and self._silent > self.gate.limits.max_head:
            self._refuse(431, _LARGE_HEAD)

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        super().on_message_begin()
        self._silent = self._discarded = 0
        self._enter("head")

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header."""
        super().on_header(name, value)
        if len(self.headers) > self.gate.limits.max_headers:
            self._stop()

    def on_headers_complete(self) -> None:
        """The end of the head."""
        size = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
        if size > self.gate.limits.max_head or len(self.pipeline) >= self.gate.limits.max_pipelined:
            self._stop()
        self._silent = 0
        self._enter("body")
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A piece of the body. After an early answer the rest is thrown away, up to a point."""
        super().on_body(body)
        self._silent = 0
        if self.cycle.response_complete:
            self._discarded += len(body)
            if self._discarded > _DISCARD * self.gate.limits.max_body:
                self._stop()

    def on_message_complete(self) -> None:
        """The end of the request."""
        super().on_message_complete()
        self._enter("idle" if self.cycle.response_complete else "answer")

    def on_response_complete(self) -> None:
        """The end of the answer."""
        super().on_response_complete()
        if self.phase == "answer":
            self._enter("idle")
        elif self.phase == "head":  # of a pipelined request: only now do we wait for it
            self._enter("head")

    def send_400_response(self, msg: str) -> None:
        """What uvicorn calls when the parser gave up."""
        if self._too_much:
            self._refuse(431, _LARGE_HEAD)
        else:
            self._refuse(400, "that is not HTTP/1.1")

    def resume_writing(self) -> None:
        """The reader took enough."""
        self._stalled = None
        super().resume_writing()

    @property
    def _answering(self) -> bool:
        """Whether a request is being served."""
        cycle: Any = self.cycle  # None before the first, whatever uvicorn's annotation says
        return cycle is not None and not cycle.response_complete

    def sweep(self, now: float) -> None:
        """Let the connection go if a phase of it takes too long. ``now``: of the loop's clock."""
        limits = self.gate.limits
        late = {
            "head": not self._answering and now - self.since > limits.head_s,
            "body": now - self.since > limits.body_s + limits.grace_s,  # the handler has answered 408 by then
        }
        if late.get(self.phase, False) or self._stalls(now):
            self.transport.abort()

    def _stalls(self, now: float) -> bool:
        waiting = self.transport.get_write_buffer_size()
        if not waiting or not (self.flow.write_paused or self.transport.is_closing()):
            self._stalled = None
            return False
        if self._stalled is None:
            self._stalled = now, waiting
        since, before = self._stalled
        if now - since < self.gate.limits.stall_s:
            return False
        self._stalled = now, waiting
        return before - waiting < _LEAST_RATE * (now - since)

    def _stop(self) -> NoReturn:
        self._too_much = True
        raise TooMuchError

    def _enter(self, phase: Literal["idle", "head", "body", "answer"]) -> None:
        self.phase = phase
        self.since = self.loop.time()
        self.gate.waiting.pop(self, None)
        if phase in {"idle", "head"} and not self._answering:
            self.gate.waiting[self] = None

    def _refuse(self, status: int, message: str, code: str = "invalid_http") -> None:
        """Answer below the app, and close."""
        self._refused = True
        if self.transport.is_closing():
            return
        if not self._answering:
            answer = ApiError(status, message, code=code).response()
            self.transport.write(_raw(answer))
        self.transport.close()


def _raw(answer: Response) -> bytes:
    request_id = b"req_" + token_bytes(12).hex().encode()
    headers: list[tuple[bytes, bytes]] = [*answer.raw_headers, (b"x-request-id", request_id), (b"connection", b"close")]
    lines = [name + b": " + value + b"\r\n" for name, value in headers]
    return b"".join([STATUS_LINE[answer.status_code], *lines, b"\r\n", bytes(answer.body)])
