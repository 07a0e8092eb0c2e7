"""A real server on a loopback port, and raw connections to it."""

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import httpx

from disagctl.gateway.app import public_app
from disagctl.gateway.limits import Limits
from disagctl.gateway.server import HttpServer
from disagctl.gateway.sockets import bind_tcp, short_path
from tests.gateway.fake_service import FakeService

_opened: "list[Raw]" = []


@asynccontextmanager
async def serving(service: FakeService, **limits) -> AsyncIterator[HttpServer]:
    bounds = dataclasses.replace(Limits(), **limits)
    server = HttpServer(public_app(service, limits=bounds), bind_tcp("127.0.0.1", 0), bounds)
    await server.start()
    try:
        yield server
    finally:
        await server.stop(grace_s=0.0)
        while _opened:
            await _opened.pop().close()


async def until(true: Callable[[], object]) -> None:
    """Give way until something in this loop has come true."""
    while not true():  # noqa: ASYNC110  the server is not ours to add events to
        await asyncio.sleep(0)


class Raw:
    """One connection, byte by byte."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def to(cls, server: HttpServer) -> "Raw":
        raw = cls(*await asyncio.open_connection("127.0.0.1", server.port))
        _opened.append(raw)
        return raw

    async def flood(self, data: bytes) -> None:
        """Send what the server may not want to read to the end."""
        with suppress(ConnectionError):
            await self.send(data)

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    def stop_reading(self) -> None:
        transport = self.writer.transport
        assert isinstance(transport, asyncio.Transport)
        transport.pause_reading()

    async def head(self) -> bytes:
        return await self.reader.readuntil(b"\r\n\r\n")

    async def rest(self) -> bytes:
        """Everything until the server closes."""
        try:
            return await self.reader.read()
        except ConnectionError:
            return b""

    async def close(self) -> None:
        self.writer.transport.abort()
        with suppress(ConnectionError):
            await self.writer.wait_closed()


BODY = b'{"prompt":"p"}'
POST = b"POST /v1/images/generations HTTP/1.1\r\nHost: h\r\nContent-Length: 14\r\n"
GET = b"GET /livez HTTP/1.1\r\nHost: h\r\n"


async def head_of(server: HttpServer) -> bytes:
    client = await Raw.to(server)
    await client.send(GET + b"\r\n")
    return await client.head()


async def ask(path) -> int:
    with short_path(path) as short:
        transport = httpx.AsyncHTTPTransport(uds=short)
        async with httpx.AsyncClient(transport=transport, base_url="http://admin") as client:
            return (await client.get("/admin/v1/status")).status_code
