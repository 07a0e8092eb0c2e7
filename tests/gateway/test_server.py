"""The real thing on a loopback port: connections that end early, never end, or never stop."""

import asyncio
import logging
import os
import shutil
import signal
import ssl
import stat
import subprocess
from pathlib import Path

import httpx
import pytest
import uvloop

from disagctl.gateway.admin import admin_app
from disagctl.gateway.app import public_app
from disagctl.gateway.server import HttpServer
from disagctl.gateway.sockets import bind_tcp, bind_unix, short_path
from tests.gateway.fake_service import FakeService
from tests.gateway.serving import Raw, serving, until

BODY = b'{"prompt":"p"}'
POST = b"POST /v1/images/generations HTTP/1.1\r\nHost: h\r\nContent-Length: 14\r\n"
GET = b"GET /livez HTTP/1.1\r\nHost: h\r\n"
LATER = 3600.0


async def sweep_later(server: HttpServer, seconds: float = LATER) -> None:
    server.sweep(asyncio.get_running_loop().time() + seconds)


@pytest.fixture
async def service() -> FakeService:
    return FakeService(held=True)


async def test_a_client_that_goes_away_takes_its_job_along(service: FakeService):
    async with serving(service) as server:
        client = await Raw.to(server)
        await client.send(POST + b"\r\n" + BODY)
        await service.waiting.wait()
        await client.close()
        await service.ended.wait()
    assert service.cancelled == ["img_shop_00000001"]


async def test_but_not_with_a_key(service: FakeService):
    key = b"Idempotency-Key: k\r\n\r\n"
    async with serving(service) as server:
        client = await Raw.to(server)
        await client.send(POST + key + BODY)
        await service.waiting.wait()
        (task,) = server._state.tasks
        await client.close()
        await asyncio.wait([task])
        assert service.cancelled == []
        again = await Raw.to(server)
        await again.send(POST + b"Connection: close\r\n" + key + BODY)
        service.finish("img_shop_00000001")
        assert b" 200 OK" in await again.rest()
    assert len(service.made) == 1


async def test_a_stop_is_no_disconnect(service: FakeService):
    """Whoever waits hears 503 and the job goes on when the head is back."""
    async with serving(service) as server:
        client = await Raw.to(server)
        await client.send(POST + b"\r\n" + BODY)
        await service.waiting.wait()
        await server.stop(grace_s=0.0)
        answer = await client.rest()
    assert answer.startswith(b"HTTP/1.1 503")
    assert b"retry-after" in answer
    assert b'"stopping"' in answer
    assert service.cancelled == []


async def test_answers_under_way_are_finished_at_a_stop(service: FakeService):
    async with serving(service) as server:
        client = await Raw.to(server)
        await client.send(POST + b"\r\n" + BODY)
        await service.waiting.wait()
        stopping = asyncio.create_task(server.stop(grace_s=60.0))
        await asyncio.sleep(0)
        service.finish("img_shop_00000001")
        assert (await client.rest()).startswith(b"HTTP/1.1 200")
        await stopping


async def test_no_signal_handler_is_installed(service: FakeService):
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    async with serving(service):
        assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


async def test_keep_alive(service: FakeService):
    async with serving(service) as server:
        client = await Raw.to(server)
        for _ in range(3):
            await client.send(GET + b"\r\n")
            assert (await client.head()).startswith(b"HTTP/1.1 200")
            await client.reader.readuntil(b"}")
        assert b"server:" not in await head_of(server)


async def head_of(server: HttpServer) -> bytes:
    client = await Raw.to(server)
    await client.send(GET + b"\r\n")
    return await client.head()


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


@pytest.fixture
def certificate(tmp_path) -> Path:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no openssl here")
    make = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1"]
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    files = ["-keyout", "both.pem", "-out", "cert.pem"]
    subprocess.run([openssl, *make, *names, *files], cwd=tmp_path, check=True, capture_output=True)
    path = tmp_path / "both.pem"
    path.write_bytes(path.read_bytes() + (tmp_path / "cert.pem").read_bytes())
    return path


async def test_tls(service: FakeService, certificate: Path):
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate)
    service.held = False
    server = HttpServer(public_app(service), bind_tcp("127.0.0.1", 0), tls=tls)
    await server.start()
    trust = ssl.create_default_context(cafile=str(certificate))
    async with httpx.AsyncClient(base_url=f"https://127.0.0.1:{server.port}", verify=trust) as client:
        answer = await client.post("/v1/images/generations", json={"prompt": "p", "response_format": "url"})
        assert answer.json()["data"][0]["url"].startswith("https://127.0.0.1:")
    await server.stop()


# --- the administration socket ---


@pytest.fixture(params=["short", "long"])
def path(request, tmp_path):
    folder = tmp_path / ("d" * 100) / ("e" * 100) if request.param == "long" else tmp_path
    folder.mkdir(parents=True, exist_ok=True)
    return folder / "admin.sock"


async def ask(path) -> int:
    with short_path(path) as short:
        transport = httpx.AsyncHTTPTransport(uds=short)
        async with httpx.AsyncClient(transport=transport, base_url="http://admin") as client:
            return (await client.get("/admin/v1/status")).status_code


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o777])
async def test_admin_socket(service: FakeService, path, umask: int):
    before = os.umask(umask)
    try:
        sock = bind_unix(path)
    finally:
        assert os.umask(before) == umask
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    server = HttpServer(admin_app(service), sock)
    await server.start()
    assert await ask(path) == 200
    with pytest.raises(OSError, match="another process"):
        bind_unix(path)
    assert await ask(path) == 200
    await server.stop()


async def test_a_dead_ones_socket_is_replaced(service: FakeService, path):
    bind_unix(path).close()
    assert path.is_socket()
    server = HttpServer(admin_app(service), bind_unix(path))
    await server.start()
    assert await ask(path) == 200
    await server.stop()


def test_other_files_stay(path):
    path.write_text("precious")
    with pytest.raises(OSError, match="a file in the socket's place"):
        bind_unix(path)
    assert path.read_text() == "precious"


def test_a_port_that_is_taken():
    with bind_tcp("127.0.0.1", 0) as first, pytest.raises(OSError, match="in use"):
        bind_tcp("127.0.0.1", first.getsockname()[1])


# --- the other loop ---


def test_on_uvloop(tmp_path):
    async def main() -> None:
        service = FakeService(held=True)
        async with serving(service, max_connections=5) as server:
            slow = [await Raw.to(server) for _ in range(20)]
            client = await Raw.to(server)
            await client.send(POST + b"\r\n" + BODY)
            await service.waiting.wait()
            await client.close()
            await service.ended.wait()
            assert [await other.rest() for other in slow[:15]] == [b""] * 15
        admin = HttpServer(admin_app(service), bind_unix(tmp_path / ("x" * 90) / "admin.sock"))
        await admin.start()
        assert await ask(tmp_path / ("x" * 90) / "admin.sock") == 200
        await admin.stop()

    (tmp_path / ("x" * 90)).mkdir()
    uvloop.run(main())
