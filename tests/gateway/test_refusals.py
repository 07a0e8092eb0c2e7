"""Every way in which a request can be wrong."""

import base64

import httpx
import pytest

from tests.gateway.conftest import connect
from tests.gateway.fake_service import IMAGE, VIDEO, FakeService

IMAGES, VIDEOS = "/v1/images/generations", "/v1/videos"
LONG = "x" * 8001


async def refused(client: httpx.AsyncClient, url: str, body, param: str | None, status: int = 400) -> dict:
    answer = await client.post(url, json=body)
    error = answer.json()["error"]
    assert answer.status_code == status, answer.text
    assert error["param"] == param, error
    assert error.keys() == {"message", "type", "code", "param"}
    assert error["type"] == "invalid_request_error"
    assert answer.headers["x-request-id"]
    return error


BAD = [
    ("prompt", None),
    ("prompt", ""),
    ("prompt", "  \n"),
    ("prompt", LONG),
    ("prompt", 3),
    ("prompt", ["p"]),
    ("negative_prompt", LONG),
    ("num_inference_steps", 0),
    ("num_inference_steps", 201),
    ("num_inference_steps", 10**12),
    ("num_inference_steps", "4"),
    ("num_inference_steps", 4.5),
    ("num_inference_steps", True),
    ("guidance_scale", -0.1),
    ("guidance_scale", 30.1),
    ("guidance_scale", "3"),
    ("size", "64"),
    ("size", "64×64"),
    ("size", "-64x64"),
    ("size", "64x64 "),
    ("size", "0x0"),
    ("size", "17x16"),
    ("size", "8x8"),
    ("size", "4112x16"),
    ("size", "99999x99999"),
    ("size", [64, 64]),
    ("seed", -1),
    ("seed", 2**63),
    ("seed", 1.5),
    ("seed", "1"),
    ("max_sequence_length", 0),
    ("max_sequence_length", 4097),
    ("output_format", "gif"),
    ("stream", True),
    ("model", 3),
    ("model", ""),
    ("steps", 3),
    ("path", "/etc/passwd"),
    ("output_path", "/etc/passwd"),
    ("a`b` - at `$.n`", 1),
    ("", 1),
    ("x" * 100, 1),
]


@pytest.mark.parametrize("url", [IMAGES, VIDEOS])
@pytest.mark.parametrize(("param", "value"), BAD)
async def test_common_fields(client: httpx.AsyncClient, service: FakeService, url: str, param: str, value):
    error = await refused(client, url, {"prompt": "p", param: value}, param)
    assert LONG not in error["message"]
    assert service.made == []


@pytest.mark.parametrize(
    ("param", "value"),
    [
        ("n", 0),
        ("n", 11),
        ("n", 10**12),
        ("response_format", "file"),
        ("seconds", 4),
        ("num_frames", 5),
        ("kind", "image"),
    ],
)
async def test_image_fields(client: httpx.AsyncClient, param: str, value):
    await refused(client, IMAGES, {"prompt": "p", param: value}, param)


@pytest.mark.parametrize(
    ("param", "value"),
    [
        ("n", 2),
        ("response_format", "url"),
        ("output_format", "png"),
        ("num_frames", 0),
        ("num_frames", 1026),
        ("num_frames", 80),
        ("fps", 0),
        ("fps", 61),
        ("fps", 2.5),
        ("seconds", 0),
        ("seconds", "0"),
        ("seconds", "-4"),
        ("seconds", "nan"),
        ("seconds", "inf"),
        ("seconds", "long"),
        ("seconds", "65"),
        ("seconds", 1e9),
        ("seconds", True),
        ("kind", "video"),
    ],
)
async def test_video_fields(client: httpx.AsyncClient, param: str, value):
    await refused(client, VIDEOS, {"prompt": "p", param: value}, param)


async def test_long_names_are_cut(client: httpx.AsyncClient):
    await refused(client, IMAGES, {"prompt": "p", "x" * 5000: 1}, "x" * 100)


async def test_near_values_are_named(client: httpx.AsyncClient):
    error = await refused(client, VIDEOS, {"prompt": "p", "num_frames": 80}, "num_frames")
    assert "77 or 81" in error["message"]
    error = await refused(client, IMAGES, {"prompt": "p", "size": "1000x33"}, "size")
    assert "992x32" in error["message"]


async def test_seconds_and_frames_exclude_each_other(client: httpx.AsyncClient):
    await refused(client, VIDEOS, {"prompt": "p", "seconds": "4", "num_frames": 81}, "num_frames")


async def test_absurd_volumes(client: httpx.AsyncClient):
    await refused(client, VIDEOS, {"prompt": "p", "size": "4096x4096", "num_frames": 1025}, "num_frames")


async def test_unknown_model_names_those_that_exist(client: httpx.AsyncClient):
    error = await refused(client, IMAGES, {"prompt": "p", "model": "dall-e-3"}, "model", 404)
    assert error["code"] == "model_not_found"
    assert "tiny-image, tiny-video" in error["message"]


@pytest.mark.parametrize(("url", "model"), [(IMAGES, "tiny-video"), (VIDEOS, "tiny-image"), (VIDEOS, "org/tiny-image")])
async def test_models_of_the_other_kind(client: httpx.AsyncClient, url: str, model: str):
    error = await refused(client, url, {"prompt": "p", "model": model}, "model")
    assert error["code"] == "wrong_modality"


async def test_services_of_the_other_kind():
    async with connect(FakeService(VIDEO)) as client:
        await refused(client, IMAGES, {"prompt": "p"}, "model")
    async with connect(FakeService(IMAGE)) as client:
        await refused(client, VIDEOS, {"prompt": "p"}, "model")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"nonsense",
        b"[]",
        b"3",
        b'"prompt"',
        b"null",
        b'{"prompt": "\xff"}',
        b'{"prompt": "\\ud800"}',
        b'{"prompt": "p", "guidance_scale": NaN}',
        b'{"prompt": "p", "guidance_scale": Infinity}',
        b'{"prompt": "p", "guidance_scale": -Infinity}',
        b'{"prompt": "p", "quality": NaN}',
        b'{"prompt": "p", "quality": ' + b"[" * 500_000 + b"]" * 500_000 + b"}",
        b'{"prompt": ' + b'{"a":' * 500_000,
        b"[" * 1_000_000,
    ],
)
@pytest.mark.parametrize("url", [IMAGES, VIDEOS])
async def test_what_is_not_json(client: httpx.AsyncClient, url: str, data: bytes):
    answer = await client.post(url, content=data)
    assert answer.status_code == 400
    assert answer.json()["error"]["type"] == "invalid_request_error"


async def test_numbers_beyond_floats(client: httpx.AsyncClient):
    answer = await client.post(IMAGES, content=b'{"prompt": "p", "guidance_scale": 1e999}')
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "guidance_scale")


@pytest.mark.parametrize("value", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"])
async def test_other_media_types(client: httpx.AsyncClient, value: str):
    answer = await client.post(IMAGES, content=b'{"prompt":"p"}', headers={"content-type": value})
    assert answer.status_code == 415


@pytest.mark.parametrize("key", ["", " ", "ü", "a" * 256, "a\tb"])
async def test_idempotency_keys(client: httpx.AsyncClient, key: str):
    headers = {b"idempotency-key": key.encode("latin-1")}
    answer = await client.post(IMAGES, json={"prompt": "p"}, headers=headers)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "Idempotency-Key")


@pytest.mark.parametrize("value", ["0", "-1", "1.5", "soon", "", "9" * 30, "²"])
async def test_deadlines(client: httpx.AsyncClient, value: str):
    headers = {b"x-deadline-ms": value.encode("latin-1")}
    answer = await client.post(IMAGES, json={"prompt": "p"}, headers=headers)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "X-Deadline-Ms")


async def test_large_bodies(client: httpx.AsyncClient):
    declared = await client.post(IMAGES, content=b'{"prompt":"' + b"x" * (20 << 20) + b'"}')
    assert (declared.status_code, declared.json()["error"]["code"]) == (413, "body_too_large")

    async def pieces():
        for _ in range(21):
            yield b" " * (1 << 20)

    chunked = await client.post(IMAGES, content=pieces())
    assert chunked.status_code == 413


URLS = [
    "http://169.254.169.254/latest/meta-data",
    "https://example.com/cat.png",
    "file:///etc/passwd",
    "ftp://127.0.0.1/x",
    "gopher://127.0.0.1",
    "//127.0.0.1/cat.png",
    "http:\\\\127.0.0.1",
    "data:text/html;base64,AAAA",
    "data:image/png,AAAA",
    "/etc/passwd",
    "",
]


@pytest.mark.parametrize("value", URLS)
@pytest.mark.parametrize("wrapped", [False, True])
async def test_urls_are_not_fetched(client: httpx.AsyncClient, value: str, wrapped: bool):
    reference = {"image_url": value} if wrapped else value
    await refused(client, VIDEOS, {"prompt": "p", "model": "tiny-i2v", "input_reference": reference}, "input_reference")
    form = {"prompt": "p", "model": "tiny-i2v", "input_reference[image_url]" if wrapped else "input_reference": value}
    answer = await client.post(VIDEOS, data=form, files={"user": (None, "u")})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "input_reference")


@pytest.mark.parametrize(
    "reference",
    [{"file_id": "file-1"}, {"image_url": 3}, {}, 3, [1], {"image_url": "data:image/png;base64,AAAA", "x": 1}],
)
async def test_other_references(client: httpx.AsyncClient, reference):
    await refused(client, VIDEOS, {"prompt": "p", "model": "tiny-i2v", "input_reference": reference}, "input_reference")


async def test_pictures_where_they_belong(client: httpx.AsyncClient):
    await refused(client, VIDEOS, {"prompt": "p", "model": "tiny-i2v"}, "input_reference")
    picture = "data:image/png;base64," + base64.b64encode(PNG_HEAD).decode()
    await refused(client, VIDEOS, {"prompt": "p", "input_reference": picture}, "input_reference")


PNG_HEAD = b"\x89PNG\r\n\x1a\n" + (13).to_bytes(4, "big") + b"IHDR" + b"\0\0\0\x10\0\0\0\x10\x08\x02\0\0\0\0\0\0\0"


@pytest.mark.parametrize("query", ["limit=0", "limit=101", "limit=x", "limit=-1", "limit=", "limit=²"])
async def test_page_sizes(client: httpx.AsyncClient, query: str):
    answer = await client.get(f"{VIDEOS}?{query}")
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "limit")


async def test_page_order_and_start(client: httpx.AsyncClient):
    assert (await client.get(f"{VIDEOS}?order=up")).json()["error"]["param"] == "order"
    assert (await client.get(f"{VIDEOS}?after=nobody")).json()["error"]["param"] == "after"


async def test_unknown_places(client: httpx.AsyncClient):
    for method, path, status in (
        ("GET", "/", 404),
        ("GET", "/v1/images/generations/", 404),
        ("GET", "/v1/videos/", 404),
        ("GET", "/admin/v1/status", 404),
        ("GET", IMAGES, 405),
        ("PUT", VIDEOS, 405),
        ("POST", "/livez", 405),
    ):
        answer = await client.request(method, path)
        assert answer.status_code == status, path
        assert answer.json()["error"]["code"] in {"unknown_url", "method_not_allowed"}
        assert answer.headers["x-request-id"]
    allowed = (await client.put(VIDEOS)).headers["allow"]
    assert {"GET", "POST"} <= {method.strip() for method in allowed.split(",")}
