import asyncio
import base64

import httpx
import pytest

from disagctl.service import Content, IdempotencyConflict, QueueFull, Stopping, StorageFull
from disagctl.views import JobError
from tests.gateway.fake_service import PNG, FakeService

URL = "/v1/images/generations"


async def test_base64_is_the_default(client: httpx.AsyncClient, service: FakeService):
    answer = await client.post(URL, json={"prompt": "a fox", "seed": 7})
    assert answer.status_code == 200
    body = answer.json()
    assert body["data"] == [{"seed": 7, "b64_json": base64.b64encode(PNG).decode()}]
    assert body["id"] == "img_shop_00000001"
    assert body["model"] == "tiny-image"
    assert (body["size"], body["output_format"]) == ("512x256", "png")
    assert isinstance(body["created"], int)
    (job,) = service.made
    assert job.params == {
        "prompt": "a fox",
        "width": 512,
        "height": 256,
        "num_inference_steps": 4,
        "guidance_scale": 3.5,
        "output_format": "png",
    }
    assert (job.kind, job.model, job.seeds, job.upload, job.deadline_s) == ("image", "tiny-image", [7], None, None)


async def test_everything_given_reaches_the_stages(client: httpx.AsyncClient, service: FakeService):
    given = {
        "prompt": "p",
        "negative_prompt": "blurry",
        "num_inference_steps": 9,
        "guidance_scale": 5,
        "max_sequence_length": 64,
        "output_format": "webp",
    }
    answer = await client.post(URL, json={**given, "size": "64x32", "model": "org/tiny-image"})
    assert answer.json()["size"] == "64x32"
    assert service.made[0].params == {**given, "width": 64, "height": 32}


async def test_url_form_can_be_fetched(client: httpx.AsyncClient):
    body = (await client.post(URL, json={"prompt": "p", "response_format": "url", "n": 2})).json()
    assert [item["url"] for item in body["data"]] == [
        f"http://shop.test:8000/v1/images/{body['id']}-{i}/content" for i in range(2)
    ]
    fetched = await client.get(body["data"][1]["url"])
    assert (fetched.status_code, fetched.content, fetched.headers["content-type"]) == (200, PNG, "image/png")


@pytest.mark.parametrize("size", [10, 3 << 20])
async def test_files_on_disk(client: httpx.AsyncClient, service: FakeService, tmp_path, size: int):
    service.held = True
    path = tmp_path / "picture.png"
    path.write_bytes(bytes(range(256)) * (size // 256 + 1))
    asking = asyncio.create_task(client.post(URL, json={"prompt": "p"}))
    await service.waiting.wait()
    service.finish("img_shop_00000001")
    service.files["img_shop_00000001-0"] = Content("image/png", path.stat().st_size, path=path)
    body = (await asking).json()
    assert base64.b64decode(body["data"][0]["b64_json"]) == path.read_bytes()
    part = await client.get(f"/v1/images/{body['id']}-0/content", headers={"range": "bytes=1-3"})
    assert (part.status_code, part.content) == (206, b"\x01\x02\x03")
    path.unlink()
    assert (await client.get(f"/v1/images/{body['id']}-0/content")).status_code == 410


async def test_seeds_follow_each_other_and_wrap(client: httpx.AsyncClient, service: FakeService):
    await client.post(URL, json={"prompt": "p", "seed": 2**63 - 2, "n": 4})
    assert service.made[0].seeds == [2**63 - 2, 2**63 - 1, 0, 1]


async def test_missing_seeds_are_drawn(client: httpx.AsyncClient, service: FakeService):
    bodies = [(await client.post(URL, json={"prompt": "p", "n": 3})).json() for _ in range(2)]
    for job, body in zip(service.made, bodies, strict=True):
        assert job.seeds == [item["seed"] for item in body["data"]]
        assert job.seeds == [job.seeds[0] + i for i in range(3)]
        assert 0 <= job.seeds[0] < 2**53
    assert service.made[0].seeds != service.made[1].seeds


async def test_what_the_stock_client_sends_is_accepted(client: httpx.AsyncClient, service: FakeService):
    extras = {
        "background": "auto",
        "moderation": "low",
        "output_compression": 80,
        "partial_images": 0,
        "quality": "hd",
        "safety_identifier": "x",
        "stream": False,
        "style": "vivid",
        "user": "me",
    }
    nulls = dict.fromkeys(["n", "size", "seed", "response_format", "model", "negative_prompt", "guidance_scale"])
    answer = await client.post(URL, json={"prompt": "p", **extras, **nulls})
    assert answer.status_code == 200
    assert not service.made[0].params.keys() & extras.keys()


async def test_size_auto_is_the_models_own(client: httpx.AsyncClient, service: FakeService):
    await client.post(URL, json={"prompt": "p", "size": "auto"})
    assert (service.made[0].params["width"], service.made[0].params["height"]) == (512, 256)


async def test_deadline(client: httpx.AsyncClient, service: FakeService):
    await client.post(URL, json={"prompt": "p"}, headers={"X-Deadline-Ms": "1500"})
    assert service.made[0].deadline_s == 1.5


async def test_first_model_of_the_kind_is_the_default(client: httpx.AsyncClient, service: FakeService):
    service._models.reverse()
    assert (await client.post(URL, json={"prompt": "p"})).json()["model"] == "tiny-image"


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (JobError("bad_request", "too wide", "size"), 400, "bad_request"),
        (JobError("dead_letter", "failed 3 times"), 500, "dead_letter"),
        (JobError("deadline_exceeded", "too late"), 504, "deadline_exceeded"),
        (JobError("whatever", "?"), 500, "whatever"),
        (None, 500, "failed"),
    ],
)
async def test_failed_jobs(client: httpx.AsyncClient, service: FakeService, error, status: int, code: str):
    service.held = True
    asking = asyncio.create_task(client.post(URL, json={"prompt": "p"}))
    await service.waiting.wait()
    service.finish("img_shop_00000001", "failed", error)
    answer = await asking
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert answer.json()["error"]["param"] == (error.param if error else None)
    assert answer.headers.get("x-should-retry") == ("false" if status >= 500 else None)


@pytest.mark.parametrize("action", ["cancel", "delete"])
async def test_cancelled_by_somebody_else(client: httpx.AsyncClient, service: FakeService, action: str):
    service.held = True
    asking = asyncio.create_task(client.post(URL, json={"prompt": "p"}))
    await service.waiting.wait()
    await getattr(service, action)("img_shop_00000001")
    answer = await asking
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "cancelled")


@pytest.mark.parametrize(
    ("error", "status", "kind", "code"),
    [
        (QueueFull(17), 429, "rate_limit_error", "queue_full"),
        (StorageFull(), 507, "server_error", "storage_full"),
        (Stopping(), 503, "server_error", "stopping"),
        (IdempotencyConflict(), 409, "idempotency_error", "idempotency_conflict"),
    ],
)
async def test_refusals(client: httpx.AsyncClient, service: FakeService, error, status: int, kind: str, code: str):
    service.refuse = error
    answer = await client.post(URL, json={"prompt": "p"})
    assert answer.status_code == status
    assert (answer.json()["error"]["type"], answer.json()["error"]["code"]) == (kind, code)
    if status == 429:
        assert answer.headers["retry-after"] == "17"


async def test_one_key_makes_one_job(client: httpx.AsyncClient, service: FakeService):
    service.held = True
    headers = {"Idempotency-Key": "k-1"}
    asking = [asyncio.create_task(client.post(URL, json={"prompt": "p"}, headers=headers)) for _ in range(100)]
    await service.waiting.wait()
    service.finish("img_shop_00000001")
    answers = await asyncio.gather(*asking)
    assert len(service.made) == 1
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.json()["data"][0]["seed"] for answer in answers}) == 1


async def test_a_key_belongs_to_its_body(client: httpx.AsyncClient, service: FakeService):
    headers = {"Idempotency-Key": "k"}
    first = await client.post(URL, json={"prompt": "p", "size": "64x64", "n": 1}, headers=headers)
    same = await client.post(URL, content=b'{"size":"64x64", "user":"u", "prompt":"p"}', headers=headers)
    assert same.json() == first.json()
    for other in ({"prompt": "q"}, {"seed": 1}, {"n": 2}, {"size": "32x32"}, {"response_format": "url"}):
        answer = await client.post(URL, json={"prompt": "p", "size": "64x64", **other}, headers=headers)
        assert (answer.status_code, answer.json()["error"]["code"]) == (409, "idempotency_conflict")
    assert len(service.made) == 1


async def test_content_is_found_by_item_and_by_job_and_nothing_else(client: httpx.AsyncClient, service: FakeService):
    job_id = (await client.post(URL, json={"prompt": "p"})).json()["id"]
    await client.post("/v1/videos", json={"prompt": "p"})
    assert (await client.get(f"/v1/images/{job_id}/content")).content == PNG
    for other in ("nothing", "video_shop_00000002", "..", "%2e%2e%2fetc", "a" * 200, "%00"):
        answer = await client.get(f"/v1/images/{other}/content")
        assert answer.status_code == 404, other
