"""Clients that are slow, large, or speak something else."""

import asyncio
import logging

import httpx
import pytest

from disagctl.gateway.server import HttpServer
from tests.gateway.fake_service import FakeService
from tests.gateway.serving import BODY, GET, POST, Raw, head_of, serving, until

LATER = 3600.0


async def sweep_later(server: HttpServer, seconds: float = LATER) -> None:
    server.sweep(asyncio.get_running_loop().time() + seconds)


@pytest.fixture
async def service() -> FakeService:
    return FakeService(held=True)


# --- slow ones ---


@pytest.mark.parametrize("sent", [b"", b"G", GET, GET + b"X-A: ", POST, b"\r\n"])
async def test_heads_that_never_end(service: FakeService, sent: bytes):
    async with serving(service) as server:
        client = await Raw.to(server)
        await client.send(sent)
        await head_of(server)  # by now the server has read what was sent
        await sweep_later(server, 1.0)
        assert not client.reader.at_eof()
        await sweep_later(server)
        assert await client.rest() == b""


async def test_second_heads_that_never_end(service: FakeService):
    async with serving(service) as server:
        client = await Raw.to(server)
        await client.send(GET + b"\r\n")
        await client.reader.readuntil(b"}")
        await client.send(GET)
        await head_of(server)
        await sweep_later(server)
        assert await client.rest() == b""


async def test_bodies_that_never_end(service: FakeService):
    async with serving(service, body_s=0.01) as server:
        client = await Raw.to(server)
        await client.send(POST + b"\r\n" + BODY[:5])
        answer = await client.rest()
    assert answer.startswith(b"HTTP/1.1 408")
    assert b"x-request-id" in answer


async def test_waiting_for_a_picture_is_not_slow(service: FakeService):
    async with serving(service) as server:
        client = await Raw.to(server)
        await client.send(POST + b"Connection: close\r\n\r\n" + BODY)
        await service.waiting.wait()
        await sweep_later(server)
        service.finish("img_shop_00000001")
        assert (await client.rest()).startswith(b"HTTP/1.1 200")


async def test_readers_that_do_not_read(service: FakeService):
    """An answer that nobody takes is not held for ever."""
    service.held = False
    async with serving(service) as server:
        client = await Raw.to(server)
        client.stop_reading()
        await client.send(POST + b"\r\n" + BODY)
        await until(lambda: service.made)
        (connection,) = server._state.connections
        connection.transport.write(bytes(64 << 20))
        assert connection.transport.get_write_buffer_size()
        await sweep_later(server, 0.0)
        assert server._state.connections
        await sweep_later(server)
        assert connection.transport.is_closing()


async def test_slow_connections_make_room_for_new_ones(service: FakeService):
    async with serving(service, max_connections=20) as server:
        slow = [await Raw.to(server) for _ in range(100)]
        for client in slow:
            await client.send(b"GET /livez HTTP/1.1\r\nX-Slow: ")
        for _ in range(10):
            assert (await head_of(server)).startswith(b"HTTP/1.1 200")
        assert len(server._state.connections) <= 20
        assert [await client.rest() for client in slow[:80]] == [b""] * 80


async def test_requests_under_way_do_not_make_room(service: FakeService):
    async with serving(service, max_connections=2) as server:
        busy = [await Raw.to(server) for _ in range(2)]
        for client in busy:
            await client.send(POST + b"Connection: close\r\n\r\n" + BODY)
        await until(lambda: len(service.made) == 2)
        third = await Raw.to(server)
        assert (await third.rest()).startswith(b"HTTP/1.1 503")
        for job_id in list(service.views):
            service.finish(job_id)
        assert all([(await client.rest()).startswith(b"HTTP/1.1 200") for client in busy])


# --- large ones ---


@pytest.mark.parametrize(
    "sent",
    [
        GET + b"X-A: " + b"a" * 400_000,
        GET + b"X-A: " + b"a" * 40_000 + b"\r\n\r\n",
        GET + b"X-A: b\r\n" * 101 + b"\r\n",
        GET + b"X" * 400_000,
        b"GET /" + b"a" * 400_000,
        b"GET /" + b"a" * 40_000 + b" HTTP/1.1\r\nHost: h\r\n\r\n",
        (GET + b"\r\n") * 1000,
    ],
)
async def test_floods_of_headers(service: FakeService, sent: bytes):
    async with serving(service) as server:
        client = await Raw.to(server)
        await client.flood(sent)
        answer = await client.rest()
        assert len(answer) < 10_000
        if answer:
            assert answer.startswith((b"HTTP/1.1 431", b"HTTP/1.1 200"))
        assert (await head_of(server)).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("trailer", [b"X-A: b\r\n" * 50_000, b"X-A: " + b"a" * 800_000])
async def test_floods_of_trailers(service: FakeService, trailer: bytes):
    head = POST.replace(b"Content-Length: 14", b"Transfer-Encoding: chunked")
    async with serving(service) as server:
        client = await Raw.to(server)
        await client.flood(head + b"\r\n0\r\n" + trailer)
        await client.rest()
    assert service.made == []


@pytest.mark.parametrize(
    "sent", [b"\x16\x03\x01\x02\x00\x01\x00" + bytes(500), b"SSH-2.0-x\r\n", b"\0" * 4096, b"GET\r\n\r\n"]
)
async def test_other_protocols(service: FakeService, sent: bytes, caplog):
    with caplog.at_level(logging.DEBUG):
        async with serving(service) as server:
            client = await Raw.to(server)
            await client.send(sent)
            answer = await client.rest()
    assert answer.startswith(b"HTTP/1.1 400")
    assert b"x-request-id: req_" in answer
    assert b'"invalid_http"' in answer
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


async def test_upgrades_are_declined(service: FakeService, caplog):
    upgrade = GET + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    with caplog.at_level(logging.INFO):
        async with serving(service) as server:
            client = await Raw.to(server)
            await client.send(upgrade)
            assert (await client.head()).startswith(b"HTTP/1.1 200")
    assert not caplog.records


async def test_a_body_that_is_refused_may_end(service: FakeService):
    """The client is let finish, so that it reads the refusal rather than a reset."""
    async with serving(service) as server, httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}") as client:
        answer = await client.post("/v1/images/generations", content=bytes(50 << 20))
        assert answer.status_code == 413
        assert (await client.get("/livez")).status_code == 200


async def test_a_body_without_end_is_cut_off(service: FakeService):
    head = POST.replace(b"Content-Length: 14", b"Transfer-Encoding: chunked")
    async with serving(service, max_body=1 << 16) as server:
        client = await Raw.to(server)
        await client.send(head + b"\r\n")
        with pytest.raises(ConnectionError):
            await client.send((b"10000\r\n" + bytes(1 << 16) + b"\r\n") * 1000)


async def test_all_bodies_together_are_bounded(service: FakeService):
    head = POST.replace(b"14", b"99999")
    async with serving(service, max_buffered=100_000) as server:
        first = await Raw.to(server)
        await first.send(head + b"\r\n" + bytes(99_000))
        await until(lambda: server._state.tasks)
        await head_of(server)  # by now the handler has taken what is there
        (task,) = server._state.tasks
        second = await Raw.to(server)
        await second.send(head + b"Connection: close\r\n\r\n" + bytes(99_000))
        answer = await second.rest()
        assert answer.startswith(b"HTTP/1.1 503")
        assert b"overloaded" in answer
        await first.close()
        await asyncio.wait([task])
        service.held = False
        third = await Raw.to(server)
        await third.send(POST + b"Connection: close\r\n\r\n" + BODY)
        assert (await third.rest()).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("host", [b"", b" ", b'a b"<>', b"[::1]:80", b"h:x", b"\xff", None])
async def test_odd_hosts(service: FakeService, host: bytes | None):
    service.held = False
    body = b'{"prompt":"p","response_format":"url"}'
    head = b"POST /v1/images/generations HTTP/1.0\r\nContent-Length: %d\r\n" % len(body)
    async with serving(service) as server:
        client = await Raw.to(server)
        await client.send(head + (b"" if host is None else b"Host: " + host + b"\r\n") + b"\r\n" + body)
        assert (await client.rest()).startswith(b"HTTP/1.1 200")
