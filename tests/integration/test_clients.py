"""What users' programs do: the stock openai client, and plain HTTP, against a real service."""

import base64
import warnings
from collections.abc import Iterator
from pathlib import Path

import httpx
import openai
import pytest

from tests.integration.harness import Service, service

TEXT = """
name: clients
models:
  - {name: pictures, id: synthetic, stages: {encode: {}, denoise: {seconds: 0.2, steps: 4}, decode: {}}}
workload: {rate: 1/s, shapes: [{size: 64x64}]}
infra: local
"""


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with service(tmp_path_factory.mktemp("home"), TEXT) as made:
        yield made


def test_openai_client_makes_pictures(running: Service) -> None:
    with openai.OpenAI(base_url=f"{running.url}/v1", api_key="none") as client:
        assert [model.id for model in client.models.list()] == ["pictures"]
        answer = client.images.generate(model="pictures", prompt="a red circle", size="64x64", n=2)
    files = [base64.b64decode(item.b64_json or "") for item in answer.data or []]
    assert len(files) == 2
    assert all(file.startswith(b"\x89PNG") for file in files)
    assert files[0] != files[1], "n pictures use seed + i"


def test_a_picture_by_url(running: Service) -> None:
    body = {"prompt": "a red circle", "size": "64x64", "seed": 3, "response_format": "url"}
    with httpx.Client(base_url=running.url) as client:
        url = client.post("/v1/images/generations", json=body).json()["data"][0]["url"]
        first = client.get(url)
        assert first.headers["content-type"] == "image/png"
        body["response_format"] = "b64_json"
        again = client.post("/v1/images/generations", json=body).json()["data"][0]["b64_json"]
    assert base64.b64decode(again) == first.content, "the same seed makes the same picture"


def test_bad_bodies_name_the_field(running: Service) -> None:
    with httpx.Client(base_url=running.url) as client:
        for body, param in (
            ({"prompt": "x", "sise": "64x64"}, "sise"),
            ({"prompt": "x", "size": "wide"}, "size"),
            ({"prompt": "x", "n": 10**12}, "n"),
            ({"prompt": ""}, "prompt"),
        ):
            answer = client.post("/v1/images/generations", json=body)
            assert answer.status_code == 400
            assert answer.json()["error"]["param"] == param
            assert answer.headers["x-request-id"]


def test_probes_and_metrics(running: Service) -> None:
    with httpx.Client(base_url=running.url) as client:
        assert client.get("/livez").status_code == 200
        assert client.get("/readyz").status_code == 200
        assert 'disagctl_workers_ready{model="pictures",stage="denoise"} 1.0' in client.get("/metrics").text
        assert client.get("/openapi.json").json()["openapi"].startswith("3.")


@pytest.mark.timeout(300)
def test_openai_client_makes_a_video(tmp_path: Path, tiny_wan: Path) -> None:
    text = (
        f"name: films\nmodel: {{id: {tiny_wan}}}\nworkload: {{rate: 1/min, shapes: [{{size: 32x32}}]}}\ninfra: local\n"
    )
    with (
        service(tmp_path, text) as films,
        openai.OpenAI(base_url=f"{films.url}/v1", api_key="none") as client,
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore", DeprecationWarning)  # the operations are deprecated upstream, not here
        extra = {"num_frames": 9, "num_inference_steps": 2}
        video = client.videos.create_and_poll(prompt="a cat", size="32x32", extra_body=extra)  # type: ignore[arg-type]
        assert video.status == "completed"
        content = client.videos.download_content(video.id).read()
        assert content[4:8] == b"ftyp"
        assert client.videos.delete(video.id).deleted
        with pytest.raises(openai.NotFoundError):
            client.videos.retrieve(video.id)


def test_a_missed_deadline_fails_and_frees_the_worker(running: Service) -> None:
    with httpx.Client(base_url=running.url, timeout=30.0) as client:
        body = {"prompt": "late", "size": "64x64"}
        late = client.post("/v1/images/generations", json=body, headers={"X-Deadline-Ms": "20"})
        assert late.status_code == 504
        assert late.json()["error"]["code"] == "deadline_exceeded"
        in_time = client.post("/v1/images/generations", json=body, headers={"X-Deadline-Ms": "30000"})
        assert in_time.status_code == 200
