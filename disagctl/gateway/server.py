"""Runs an app on a socket inside the event loop that is there: no signal handlers, no loop of its own, no access log."""

import asyncio
import resource
import socket
import ssl
from contextlib import suppress
from email.utils import formatdate
from typing import Final

from starlette.types import ASGIApp
from uvicorn.config import Config
from uvicorn.server import ServerState

from disagctl.clock import wall_s
from disagctl.gateway.limits import Limits
from disagctl.gateway.protocol import Gate, GuardedProtocol
from disagctl.gateway.sockets import BACKLOG

_TICK_S: Final = 1.0
_FILES_OF_OTHERS: Final = 1024  # the store, artefacts, ZMQ


class HttpServer:
    """One listening socket and its connections."""

    def __init__(
        self, app: ASGIApp, sock: socket.socket, limits: Limits | None = None, *, tls: ssl.SSLContext | None = None
    ) -> None:
        self.limits = limits or Limits()
        self.gate = Gate(self.limits, _affordable(self.limits.max_connections))
        self._sock = sock
        self._tls = tls
        self._address = sock.getsockname()
        self._state = ServerState()
        self._config = Config(
            app,
            interface="asgi3",
            lifespan="off",
            ws="none",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=self.limits.keep_alive_s,
        )
        self._server: asyncio.Server | None = None
        self._ticker: asyncio.Task[None] | None = None

    @property
    def port(self) -> int:
        """The TCP port."""
        return int(self._address[1])

    async def start(self) -> None:
        """Accept connections from now on."""
        loop = asyncio.get_running_loop()
        self._config.load()
        self._date()

        def protocol() -> asyncio.Protocol:
            return GuardedProtocol(self.gate, self._config, self._state, loop)

        if self._sock.family == socket.AF_UNIX:
            self._server = await loop.create_unix_server(protocol, sock=self._sock, backlog=BACKLOG)
        else:
            patience = self.limits.head_s if self._tls else None
            self._server = await loop.create_server(
                protocol, sock=self._sock, backlog=BACKLOG, ssl=self._tls, ssl_handshake_timeout=patience
            )
        self._ticker = asyncio.create_task(self._tick(), name="http-sweep")

    async def stop(self, grace_s: float | None = None) -> None:
        """Take no more connections, let answers under way finish for a moment, tell the others 503, and close.

        Clients that wait for a picture are told, not mistaken for gone: what was accepted is not cancelled.
        """
        if self._server is not None:
            self._server.close()
        if self._ticker is not None:
            self._ticker.cancel()
        for connection in list(self._state.connections):
            connection.shutdown()
        tasks = set(self._state.tasks)
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=self.limits.grace_s if grace_s is None else grace_s)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late, timeout=1.0)
        await asyncio.sleep(0)  # lets closing transports flush what they hold
        for connection in list(self._state.connections):
            if connection.transport.get_write_buffer_size() == 0:
                connection.transport.abort()
            else:
                connection.transport.close()
        self._sock.close()

    def sweep(self, now: float) -> None:
        """Let connections go that take too long. ``now``: of the loop's clock."""
        for connection in list(self._state.connections):
            assert isinstance(connection, GuardedProtocol)  # noqa: S101  no other protocol is made here
            connection.sweep(now)

    async def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(_TICK_S)
            self._date()
            self.sweep(loop.time())

    def _date(self) -> None:
        self._state.default_headers = [(b"date", formatdate(wall_s(), usegmt=True).encode())]


def _affordable(wanted: int) -> int:
    """How many connections the limit on open files allows, after raising it as far as we may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    need = wanted + _FILES_OF_OTHERS
    if soft != resource.RLIM_INFINITY and soft < need:
        soft = need if hard == resource.RLIM_INFINITY else min(need, hard)
        with suppress(ValueError, OSError):  # macOS has a further limit that it does not tell
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return wanted if soft == resource.RLIM_INFINITY else min(wanted, max(16, soft - min(_FILES_OF_OTHERS, soft // 2)))
