"""Tokens, ids, health, models, the description of itself, and what happens when something breaks."""

import json
import logging
import os
import re
from pathlib import PosixPath

import httpx
import pytest

from disagctl import __version__
from disagctl.gateway.app import endpoints
from disagctl.gateway.boundary import StreamBrokenError
from disagctl.gateway.context import Context
from disagctl.gateway.limits import Limits
from disagctl.gateway.openapi import OPERATIONS, document
from disagctl.service import Content
from tests.gateway.conftest import connect
from tests.gateway.fake_service import FakeService

jsonschema = pytest.importorskip("jsonschema")
CLOSED = [
    ("POST", "/v1/images/generations"),
    ("GET", "/v1/images/x/content"),
    ("POST", "/v1/videos"),
    ("GET", "/v1/videos"),
    ("GET", "/v1/videos/x"),
    ("DELETE", "/v1/videos/x"),
    ("GET", "/v1/videos/x/content"),
    ("GET", "/v1/models"),
    ("GET", "/v1/models/org/tiny-image"),
    ("GET", "/metrics"),
    ("GET", "/version"),
    ("GET", "/openapi.json"),
]


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer wrong", "Basic good", "good", "Bearer " + "x" * 1000])
@pytest.mark.parametrize(("method", "path"), CLOSED)
async def test_without_a_token(method: str, path: str, header: str | None):
    headers = {} if header is None else {"authorization": header}
    async with connect(FakeService(tokens={"good"}), **headers) as client:
        answer = await client.request(method, path)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.json()["error"] == {
        "message": "a valid bearer token is required",
        "type": "authentication_error",
        "code": "invalid_api_key",
        "param": None,
    }


@pytest.mark.parametrize("header", ["Bearer good", "bearer good", "Bearer  good "])
async def test_with_a_token(header: str):
    async with connect(FakeService(tokens={"good"}), authorization=header) as client:
        assert (await client.get("/v1/models")).status_code == 200


async def test_open_to_all():
    async with connect(FakeService(tokens={"good"})) as client:
        for path in ("/livez", "/readyz", "/health"):
            assert (await client.get(path)).status_code == 200


async def test_every_endpoint_is_tried_above():
    paths = {(e.method, e.path) for e in endpoints(Context(FakeService(), Limits())) if not e.open}
    patterns = {(m, re.sub("{name:path}", ".+", re.sub("{id}", "[^/]+", p))) for m, p in paths}
    assert all(any(m == method and re.fullmatch(p, path) for method, path in CLOSED) for m, p in patterns)


async def test_web_pages_cannot_use_an_open_service(service: FakeService):
    body = {"prompt": "p"}
    async with connect(service, origin="https://evil.example") as client:
        answer = await client.post("/v1/videos", data=body, files={"user": (None, "u")})
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "origin_refused")
        trusted = await client.post("/v1/videos", json=body, headers={"authorization": "Bearer anything"})
        assert trusted.status_code == 200
        assert not [name for name in trusted.headers if name.startswith("access-control")]


async def test_readiness(client: httpx.AsyncClient, service: FakeService):
    assert (await client.get("/readyz")).json() == {"status": "ok", "ready": True, "reason": None}
    service.ready = (False, "no denoise worker is ready")
    answer = await client.get("/readyz")
    assert (answer.status_code, answer.json()["reason"]) == (503, "no denoise worker is ready")
    assert (await client.get("/livez")).status_code == 200
    health = await client.get("/health")
    assert (health.status_code, health.json()["ready"]) == (200, False)


async def test_models(client: httpx.AsyncClient):
    listed = (await client.get("/v1/models")).json()
    assert listed["object"] == "list"
    assert [model["id"] for model in listed["data"]] == ["tiny-image", "tiny-video", "tiny-i2v"]
    one = (await client.get("/v1/models/tiny-image")).json()
    assert one == listed["data"][0]
    assert (one["object"], one["created"], one["modality"]) == ("model", 1_700_000_000, "image")
    assert (await client.get("/v1/models/org/tiny-image")).json() == one
    assert (await client.get("/v1/models/other")).json()["error"]["code"] == "model_not_found"


async def test_the_rest(client: httpx.AsyncClient):
    assert (await client.get("/version")).json() == {"name": "shop", "version": __version__}
    metrics = await client.get("/metrics")
    assert metrics.text == "disagctl_up 1\n"
    assert metrics.headers["content-type"].startswith("text/plain; version=0.0.4")
    head = await client.head("/livez")
    assert (head.status_code, head.content) == (200, b"")


async def test_request_ids(client: httpx.AsyncClient):
    made = {(await client.get("/livez")).headers["x-request-id"] for _ in range(3)}
    assert len(made) == 3
    mine = await client.get("/v1/models/other", headers={"x-request-id": "trace-1.2_3"})
    assert mine.headers["x-request-id"] == "trace-1.2_3"
    for bad in ("a" * 65, "a b", "<script>", ""):
        assert (await client.get("/livez", headers={"x-request-id": bad})).headers["x-request-id"] != bad


async def test_nothing_is_said_of_what_broke(client: httpx.AsyncClient, service: FakeService, caplog):
    canary = "canary-5f3759df"
    service.refuse = RuntimeError(f"cannot store {canary}")
    with caplog.at_level(logging.DEBUG):
        answer = await client.post("/v1/images/generations", json={"prompt": canary})
    assert answer.status_code == 500
    request_id = answer.headers["x-request-id"]
    assert request_id in answer.json()["error"]["message"]
    assert answer.json()["error"]["type"] == "server_error"
    assert canary not in answer.text
    assert canary not in caplog.text
    assert request_id in caplog.text
    assert "RuntimeError" in caplog.text
    assert "fake_service.py" in caplog.text
    assert (await client.get("/livez")).status_code == 200


@pytest.mark.parametrize("field", ["prompt", "negative_prompt", "canary", "size", "model"])
async def test_prompts_stay_out_of_logs(client: httpx.AsyncClient, service: FakeService, caplog, field: str):
    canary = "canary-5f3759df"
    with caplog.at_level(logging.DEBUG):
        await client.post("/v1/images/generations", json={"prompt": canary, field: canary})
        await client.post("/v1/videos", data={"prompt": canary, field: canary}, files={"user": (None, canary)})
        await client.post("/v1/videos", content=b'{"prompt": "canary-5f3759df')
    ours = [record for record in caplog.records if not record.name.startswith(("httpx", "httpcore"))]
    assert canary not in " ".join(record.getMessage() for record in ours)


async def test_a_broken_stream_is_broken_off(service: FakeService, tmp_path):
    class Vanishing(PosixPath):
        """Is there when looked at, and gone when opened."""

        def stat(self, *, follow_symlinks: bool = True) -> os.stat_result:
            return (tmp_path / "other").stat(follow_symlinks=follow_symlinks)

    (tmp_path / "other").write_bytes(b"12345")
    service.files["img"] = Content("image/png", 5, path=Vanishing(tmp_path / "gone"))
    async with connect(service) as client:
        with pytest.raises(StreamBrokenError):
            await client.get("/v1/images/img/content")


# --- /openapi.json ---


async def test_every_endpoint_is_described(client: httpx.AsyncClient, service: FakeService):
    described = {(op.method.upper(), op.path) for op in OPERATIONS}
    served = {(e.method, e.path.replace(":path", "")) for e in endpoints(Context(service, Limits()))}
    assert described == served
    assert (await client.get("/openapi.json")).json() == json.loads(json.dumps(document()))


async def test_what_is_open_is_described_so(service: FakeService):
    is_open = {e.path: e.open for e in endpoints(Context(service, Limits()))}
    for path, methods in document()["paths"].items():
        for operation in methods.values():
            assert (operation.get("security") == []) is is_open.get(path, False), path


def schema(name: str) -> dict:
    return {"$ref": f"#/components/schemas/{name}", "components": document()["components"]}


async def test_answers_are_as_described(client: httpx.AsyncClient, service: FakeService):
    image = (await client.post("/v1/images/generations", json={"prompt": "p"})).json()
    jsonschema.validate(image, schema("ImagesAnswer"))
    video = (await client.post("/v1/videos", json={"prompt": "p"})).json()
    jsonschema.validate(video, schema("Video"))
    jsonschema.validate((await client.get("/v1/videos")).json(), schema("VideoList"))
    jsonschema.validate((await client.get("/v1/models")).json(), schema("ModelList"))
    jsonschema.validate((await client.get("/nowhere")).json(), schema("ErrorAnswer"))


async def test_requests_are_as_described():
    body = {"prompt": "p", "n": 3, "size": "64x64", "user": "me", "quality": "hd"}
    jsonschema.validate(body, schema("ImageBody"))
    for wrong in ({}, {"prompt": "p", "n": 11}, {"prompt": "p", "unknown": 1}, {"prompt": "p", "guidance_scale": 31}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, schema("ImageBody"))


def test_references_resolve():
    text = json.dumps(document())
    names = set(re.findall(r"#/components/schemas/(\w+)", text))
    assert names <= document()["components"]["schemas"].keys()
