import asyncio
import base64
from collections.abc import AsyncIterator

import httpx
import msgspec
import pytest

from disagctl.gateway.admin import admin_app
from disagctl.gateway.server import HttpServer
from disagctl.gateway.sockets import bind_unix
from disagctl.views import JobView, StatusView
from tests.gateway.fake_service import MP4, PNG, FakeService

URL = "/admin/v1"


@pytest.fixture
async def service() -> FakeService:
    return FakeService(tokens={"unused here"})


@pytest.fixture
async def client(service: FakeService) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(admin_app(service))
    async with httpx.AsyncClient(transport=transport, base_url="http://admin") as client:
        yield client


async def test_status(client: httpx.AsyncClient, service: FakeService):
    answer = await client.get(f"{URL}/status")
    assert msgspec.json.decode(answer.content, type=StatusView) == service.status()
    assert answer.json()["schema_version"] == 1


async def test_status_stream(service: FakeService, tmp_path):
    server = HttpServer(admin_app(service), bind_unix(tmp_path / "s"))
    await server.start()
    transport = httpx.AsyncHTTPTransport(uds=str(tmp_path / "s"))
    async with (
        httpx.AsyncClient(transport=transport, base_url="http://admin") as client,
        client.stream("GET", f"{URL}/status/stream?interval_s=0.05") as answer,
    ):
        assert answer.headers["content-type"] == "application/x-ndjson"
        lines = answer.aiter_lines()
        seen = [msgspec.json.decode(await anext(lines), type=StatusView) for _ in range(3)]
    assert seen == [service.status()] * 3
    await server.stop()


async def test_events(client: httpx.AsyncClient):
    assert [event["seq"] for event in (await client.get(f"{URL}/events")).json()["events"]] == [1, 2, 3]
    assert [event["seq"] for event in (await client.get(f"{URL}/events?after=2")).json()["events"]] == [3]


async def test_a_request(client: httpx.AsyncClient, service: FakeService):
    service.held = True
    answer = await client.post(f"{URL}/requests", json={"prompt": "p", "seed": 1, "n": 2})
    job = msgspec.json.decode(answer.content, type=JobView)
    assert (job.kind, job.status, [item.seed for item in job.items]) == ("image", "queued", [1, 2])
    waiting = asyncio.create_task(client.get(f"{URL}/requests/{job.id}?wait_s=30"))
    await service.waiting.wait()
    service.change(job.id, progress=50)
    assert not waiting.done()
    service.finish(job.id)
    assert (await waiting).json()["status"] == "succeeded"
    assert (await client.get(f"{URL}/requests/{job.id}/content")).content == PNG
    assert (await client.get(f"{URL}/requests/{job.id}-1/content")).content == PNG


async def test_waiting_for_a_change(client: httpx.AsyncClient, service: FakeService):
    service.held = True
    job = (await client.post(f"{URL}/requests", json={"prompt": "p"})).json()
    waiting = asyncio.create_task(client.get(f"{URL}/requests/{job['id']}?wait_s=30&version={job['version']}"))
    await service.waiting.wait()
    service.change(job["id"], progress=50)
    assert (await waiting).json()["progress"] == 50
    at_once = await client.get(f"{URL}/requests/{job['id']}")
    assert at_once.json()["progress"] == 50
    timed_out = await client.get(f"{URL}/requests/{job['id']}?wait_s=0.01")
    assert timed_out.json()["status"] == "queued"


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ({}, "image"),
        ({"model": "tiny-video"}, "video"),
        ({"kind": "video"}, "video"),
        ({"model": "tiny-image"}, "image"),
    ],
)
async def test_the_kind_follows(client: httpx.AsyncClient, body, kind: str):
    assert (await client.post(f"{URL}/requests", json={"prompt": "p", **body})).json()["kind"] == kind


async def test_pictures(client: httpx.AsyncClient, service: FakeService):
    body = {"prompt": "p", "model": "tiny-i2v", "input_reference": base64.b64encode(PNG).decode()}
    job = (await client.post(f"{URL}/requests", json=body)).json()
    assert service.made[0].upload == PNG
    assert (await client.get(f"{URL}/requests/{job['id']}/content")).content == MP4


async def test_cancel(client: httpx.AsyncClient, service: FakeService):
    service.held = True
    job = (await client.post(f"{URL}/requests", json={"prompt": "p"})).json()
    answer = await client.delete(f"{URL}/requests/{job['id']}")
    assert (answer.status_code, answer.json()["status"]) == (200, "cancelled")
    assert job["id"] in service.views  # still there to look at


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({}, 400, "prompt"),
        ({"prompt": "p", "kind": "sound"}, 400, "kind"),
        ({"prompt": "p", "model": "none"}, 404, "model"),
        ({"prompt": "p", "kind": "image", "model": "tiny-video"}, 400, "model"),
        ({"prompt": "p", "seconds": "4"}, 400, "seconds"),
        ({"prompt": "p", "extra": 1}, 400, "extra"),
    ],
)
async def test_refusals(client: httpx.AsyncClient, body, status: int, param: str):
    answer = await client.post(f"{URL}/requests", json=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (status, param)


async def test_what_is_not_there(client: httpx.AsyncClient):
    for method, path in (("GET", ""), ("GET", "?wait_s=1"), ("DELETE", ""), ("GET", "/content")):
        answer = await client.request(method, f"{URL}/requests/nothing{path}")
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")
    assert (await client.get("/v1/models")).status_code == 404


async def test_models(client: httpx.AsyncClient):
    models = (await client.get(f"{URL}/models")).json()["models"]
    assert models[0]["name"] == "tiny-image"
    assert models[0]["card"]["stages"] == ["encode", "denoise", "decode"]


async def test_scale(client: httpx.AsyncClient, service: FakeService):
    answer = await client.post(f"{URL}/scale", json={"counts": {"denoise": 3}})
    assert answer.json() == {"schema_version": 1, "counts": {"denoise": 3}, "auto": False}
    await client.post(f"{URL}/scale", json={"auto": True})
    assert service.scaled == [({"denoise": 3}, False), ({}, True)]
    for body in (
        {"counts": {"upscale": 1}},
        {"counts": {"denoise": -1}},
        {"counts": {"denoise": 1.5}},
        {},
        {"count": 1},
    ):
        assert (await client.post(f"{URL}/scale", json=body)).status_code == 400
    assert len(service.scaled) == 2


async def test_token_and_stop(client: httpx.AsyncClient, service: FakeService):
    assert (await client.post(f"{URL}/token")).json()["token"] == "secret-token"
    assert (await client.post(f"{URL}/stop", json={"discard": True})).json()["stopping"] is True
    await client.post(f"{URL}/stop")
    assert service.stopped == [True, False]


@pytest.mark.parametrize("query", ["status/stream?interval_s=x", "events?after=nan", "requests/a?wait_s=soon"])
async def test_numbers(client: httpx.AsyncClient, query: str):
    assert (await client.get(f"{URL}/{query}")).status_code == 400
