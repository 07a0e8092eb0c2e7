import base64

import httpx
import pytest

from disagctl.views import JobError
from tests.gateway.fake_service import MP4, PNG, VIDEO, FakeService

URL = "/v1/videos"
DATA_URL = "data:image/png;base64," + base64.b64encode(PNG).decode()


async def test_the_object(client: httpx.AsyncClient, service: FakeService):
    service.held = True
    answer = await client.post(URL, json={"prompt": "a fox", "seconds": "4", "size": "1280x720", "seed": 3})
    assert answer.status_code == 200
    assert answer.headers["openai-poll-after-ms"] == "1000"
    assert answer.json() == {
        "id": "video_shop_00000001",
        "object": "video",
        "model": "tiny-video",
        "status": "queued",
        "progress": 0,
        "prompt": "a fox",
        "seconds": "4",
        "size": "1280x720",
        "created_at": 1_700_000_100,
        "completed_at": None,
        "expires_at": None,
        "error": None,
        "seed": 3,
        "num_frames": 65,
        "fps": 16,
    }
    (job,) = service.made
    assert (job.kind, job.seeds) == ("video", [3])
    assert job.params == {
        "prompt": "a fox",
        "width": 1280,
        "height": 720,
        "num_frames": 65,
        "fps": 16,
        "num_inference_steps": 50,
        "output_format": "mp4",
    }


async def test_a_life(client: httpx.AsyncClient, service: FakeService):
    service.held = True
    video_id = (await client.post(URL, json={"prompt": "p"})).json()["id"]
    service.change(video_id, status="running", progress=50, started_at=1.0)
    answer = await client.get(f"{URL}/{video_id}")
    assert (answer.json()["status"], answer.json()["progress"]) == ("in_progress", 50)
    assert answer.headers["openai-poll-after-ms"] == "5000"
    early = await client.get(f"{URL}/{video_id}/content")
    assert (early.status_code, early.json()["error"]["code"]) == (404, "not_ready")
    service.finish(video_id)
    answer = await client.get(f"{URL}/{video_id}")
    assert (answer.json()["status"], answer.json()["completed_at"]) == ("completed", 1_700_000_101)
    assert "openai-poll-after-ms" not in answer.headers
    content = await client.get(f"{URL}/{video_id}/content?variant=video")
    assert (content.content, content.headers["content-type"]) == (MP4, "video/mp4")
    assert (await client.get(f"{URL}/{video_id}/content?variant=thumbnail")).json()["error"]["param"] == "variant"


@pytest.mark.parametrize(
    ("status", "error", "shown"),
    [
        ("failed", JobError("dead_letter", "3 tries"), {"code": "dead_letter", "message": "3 tries"}),
        ("cancelled", None, {"code": "cancelled", "message": "the request was cancelled"}),
    ],
)
async def test_failed_ones_are_shown(client: httpx.AsyncClient, service: FakeService, status, error, shown):
    service.held = True
    video_id = (await client.post(URL, json={"prompt": "p"})).json()["id"]
    service.finish(video_id, status, error)
    answer = await client.get(f"{URL}/{video_id}")
    assert (answer.status_code, answer.json()["status"], answer.json()["error"]) == (200, "failed", shown)
    assert (await client.get(f"{URL}/{video_id}/content")).status_code == 404


async def test_delete_cancels(client: httpx.AsyncClient, service: FakeService):
    service.held = True
    video_id = (await client.post(URL, json={"prompt": "p"})).json()["id"]
    answer = await client.delete(f"{URL}/{video_id}")
    assert answer.json() == {"id": video_id, "object": "video.deleted", "deleted": True}
    assert service.cancelled == [video_id]
    for gone in (await client.get(f"{URL}/{video_id}"), await client.delete(f"{URL}/{video_id}")):
        assert gone.status_code == 404


async def test_pictures_are_no_videos(client: httpx.AsyncClient):
    image_id = (await client.post("/v1/images/generations", json={"prompt": "p"})).json()["id"]
    for method, path in (("GET", ""), ("GET", "/content"), ("DELETE", "")):
        assert (await client.request(method, f"{URL}/{image_id}{path}")).status_code == 404


async def test_pages(client: httpx.AsyncClient):
    empty = (await client.get(URL)).json()
    assert empty == {"object": "list", "data": [], "first_id": None, "last_id": None, "has_more": False}
    ids = [(await client.post(URL, json={"prompt": str(i)})).json()["id"] for i in range(5)]
    page = (await client.get(f"{URL}?limit=2")).json()
    assert [video["id"] for video in page["data"]] == [ids[4], ids[3]]
    assert (page["first_id"], page["last_id"], page["has_more"]) == (ids[4], ids[3], True)
    rest = (await client.get(f"{URL}?order=asc&after={ids[1]}")).json()
    assert ([video["id"] for video in rest["data"]], rest["has_more"]) == (ids[2:], False)


@pytest.mark.parametrize(
    ("given", "frames", "fps", "seconds"),
    [
        ({}, 81, 16, "5"),
        ({"seconds": "5"}, 81, 16, "5"),
        ({"seconds": 5}, 81, 16, "5"),
        ({"seconds": 5, "fps": 24}, 121, 24, "5"),
        ({"seconds": "1.1", "fps": 10}, 13, 10, "1.2"),
        ({"seconds": 0.01}, 1, 16, "0"),
        ({"num_frames": 1}, 1, 16, "0"),
        ({"num_frames": 17, "fps": 60}, 17, 60, "0.27"),
    ],
)
async def test_frames(client: httpx.AsyncClient, service: FakeService, given, frames: int, fps: int, seconds: str):
    body = (await client.post(URL, json={"prompt": "p", **given})).json()
    params = service.made[0].params
    assert (params["num_frames"], params["fps"], body["seconds"]) == (frames, fps, seconds)


async def test_models_that_take_any_number_of_frames(client: httpx.AsyncClient, service: FakeService):
    object.__setattr__(VIDEO.card, "frames_multiple", 1)
    try:
        body = (await client.post(URL, json={"prompt": "p", "seconds": "4"})).json()
    finally:
        object.__setattr__(VIDEO.card, "frames_multiple", 4)
    assert (service.made[0].params["num_frames"], body["seconds"]) == (64, "4.06"[:1])


async def test_forms_are_coerced(client: httpx.AsyncClient, service: FakeService):
    form = {
        "prompt": "null",
        "model": "tiny-video",
        "seconds": "2",
        "fps": "24",
        "size": "64x64",
        "seed": "7",
        "guidance_scale": "2.5",
        "num_inference_steps": "3",
        "negative_prompt": "",
        "stream": "false",
        "user": "me",
    }
    answer = await client.post(URL, data=form, files={"quality": (None, "hd")})
    assert answer.status_code == 200, answer.text
    (job,) = service.made
    assert job.params["prompt"] == "null"
    assert (job.params["num_frames"], job.params["fps"], job.params["guidance_scale"]) == (49, 24, 2.5)
    assert (job.params["num_inference_steps"], job.params["width"], job.seeds) == (3, 64, [7])


@pytest.mark.parametrize(
    ("field", "value"),
    [("seed", "x"), ("fps", "2.5"), ("guidance_scale", "nan"), ("guidance_scale", "inf"), ("n", "2"), ("steps", "3")],
)
async def test_forms_that_do_not_fit(client: httpx.AsyncClient, field: str, value: str):
    answer = await client.post(URL, data={"prompt": "p", field: value}, files={"user": (None, "u")})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, field)


@pytest.mark.parametrize("name", ["cat.png", "../../etc/cron.d/x", ""])
async def test_uploads(client: httpx.AsyncClient, service: FakeService, name: str):
    form = {"prompt": "p", "model": "tiny-i2v"}
    answer = await client.post(URL, data=form, files={"input_reference": (name or "f", PNG, "image/png")})
    assert answer.status_code == 200, answer.text
    assert service.made[0].upload == PNG


async def test_large_uploads_stay_in_memory(client: httpx.AsyncClient, service: FakeService):
    picture = PNG + bytes(5 << 20)
    form = {"prompt": "p", "model": "tiny-i2v"}
    answer = await client.post(URL, data=form, files={"input_reference": ("f", picture)})
    assert answer.status_code == 200
    assert service.made[0].upload == picture


@pytest.mark.parametrize("reference", [DATA_URL, {"image_url": DATA_URL}, base64.b64encode(PNG).decode()])
async def test_pictures_in_json(client: httpx.AsyncClient, service: FakeService, reference):
    answer = await client.post(URL, json={"prompt": "p", "model": "tiny-i2v", "input_reference": reference})
    assert answer.status_code == 200, answer.text
    assert service.made[0].upload == PNG


async def test_pictures_in_form_strings(client: httpx.AsyncClient, service: FakeService):
    form = {"prompt": "p", "model": "tiny-i2v", "input_reference[image_url]": DATA_URL}
    answer = await client.post(URL, data=form, files={"user": (None, "u")})
    assert answer.status_code == 200, answer.text
    assert service.made[0].upload == PNG


async def test_the_picture_is_part_of_the_key(client: httpx.AsyncClient, service: FakeService):
    headers = {"Idempotency-Key": "k"}
    body = {"prompt": "p", "model": "tiny-i2v", "input_reference": DATA_URL}
    first = await client.post(URL, json=body, headers=headers)
    files = {"input_reference": ("f", PNG)}
    same = await client.post(URL, data={"prompt": "p", "model": "tiny-i2v"}, files=files, headers=headers)
    assert same.json() == first.json()
    body["input_reference"] = DATA_URL[:-4] + base64.b64encode(b"x").decode()
    other = await client.post(URL, json=body, headers=headers)
    assert other.status_code in {400, 409}
    assert len(service.made) == 1


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"", "multipart/form-data"),
        (b"--x--", "multipart/form-data"),
        (b"nonsense", "multipart/form-data; boundary=x"),
        (b"--x\r\n\r\nabc\r\n--x--\r\n", "multipart/form-data; boundary=x"),
        (
            b'--x\r\nContent-Disposition: form-data; name="prompt"\r\n\r\np\r\n' * 2 + b"--x--\r\n",
            "multipart/form-data; boundary=x",
        ),
        (
            b'--x\r\nContent-Disposition: form-data; name="prompt"; filename="f"\r\n\r\np\r\n--x--\r\n',
            "multipart/form-data; boundary=x",
        ),
        (
            b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\np\r\n' * 1000 + b"--x--\r\n",
            "multipart/form-data; boundary=x",
        ),
        (
            b'--x\r\nContent-Disposition: form-data; name="prompt"\r\n' + b"X-A: b\r\n" * 10_000,
            "multipart/form-data; boundary=x",
        ),
    ],
)
async def test_broken_forms(client: httpx.AsyncClient, data: bytes, kind: str):
    answer = await client.post(URL, content=data, headers={"content-type": kind})
    assert answer.status_code == 400, answer.text
