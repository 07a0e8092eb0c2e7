"""The real thing on a loopback port: connections that end early, never end, or never stop."""

import asyncio
import signal

import pytest
import uvloop

from disagctl.gateway.admin import admin_app
from disagctl.gateway.server import HttpServer
from disagctl.gateway.sockets import bind_unix
from tests.gateway.fake_service import FakeService
from tests.gateway.serving import BODY, GET, POST, Raw, ask, head_of, serving


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
