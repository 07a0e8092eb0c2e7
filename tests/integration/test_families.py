"""Every model family as three worker processes: the file is, byte for byte, what diffusers makes in one process."""

import base64
import io
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import httpx
import pytest
from PIL import Image

from disagctl.admin_client import admin
from tests.integration.harness import Service, service
from tests.models.reference import reference_bytes
from tests.tiny import FAMILIES, VIDEO

QUICK = ("flux", "wan", "sdxl")
TEXT = """
name: {name}
model: {{id: {folder}}}
workload: {{rate: 1/min, shapes: [{{size: 32x32}}]}}
infra: local
"""


def picture() -> bytes:
    """Something to start an image-to-video from."""
    image = Image.linear_gradient("L").resize((32, 32)).convert("RGB")
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "family", [*QUICK, *(pytest.param(f, marks=pytest.mark.families) for f in FAMILIES if f not in QUICK)]
)
def test_three_processes_equal_one(tmp_path: Path, tiny_model: Callable[[str], Path], family: str) -> None:
    folder = tiny_model(family)
    start = picture() if family == "wan_i2v" else None
    negative = {} if family in {"flux", "hunyuan"} else {"negative_prompt": "blurred"}
    with service(tmp_path, TEXT.format(name=family.replace("_", "-"), folder=folder)) as running:
        made = generate(running, {"prompt": "a cat", "seed": 7, **negative}, start)
    params = {"prompt": "a cat", "seed": 7, "output_format": "mp4" if family in VIDEO else "png", **negative}
    assert made == reference_bytes(folder, params, start)


@pytest.mark.timeout(600)
@pytest.mark.families
def test_four_processes_with_an_expert_each_equal_one(tmp_path: Path, tiny_model: Callable[[str], Path]) -> None:
    folder = tiny_model("wan22")
    text = TEXT.replace("{folder}", "{folder}, options: {{experts: split}}")
    with service(tmp_path, text.format(name="split", folder=folder)) as running:
        made = generate(running, {"prompt": "a cat", "seed": 7, "negative_prompt": "blurred"}, None)
    params = {"prompt": "a cat", "seed": 7, "output_format": "mp4", "negative_prompt": "blurred"}
    assert made == reference_bytes(folder, params)


@pytest.mark.timeout(600)
@pytest.mark.families
def test_a_service_of_quantised_stages(tmp_path: Path, tiny_model: Callable[[str], Path]) -> None:
    if find_spec("torchao") is None:
        pytest.skip("needs the extra worker-quant")
    folder = tiny_model("flux")
    text = TEXT + "stages: {{encode: {{precision: fp8}}, denoise: {{precision: [int8, bf16], offload: true}}}}\n"
    with service(tmp_path, text.format(name="quantised", folder=folder)) as running:
        made = {generate(running, {"prompt": "a cat", "seed": 7}, None) for _ in range(2)}
    assert len(made) == 1
    assert made != {reference_bytes(folder, {"prompt": "a cat", "seed": 7, "output_format": "png"})}


def generate(running: Service, fields: dict[str, object], start: bytes | None) -> bytes:
    """One request through the head, as the CLI makes it."""
    body = dict(fields)
    if start is not None:
        body["input_reference"] = f"data:image/png;base64,{base64.b64encode(start).decode()}"
    with admin(running.where, timeout_s=120.0) as client:
        job = client.post("/admin/v1/requests", json=body).json()
        assert "id" in job, job
        ended = client.get(f"/admin/v1/requests/{job['id']}", params={"wait_s": 30})
        while ended.json()["status"] in ("queued", "running"):
            ended = client.get(f"/admin/v1/requests/{job['id']}", params={"wait_s": 30})
        assert ended.json()["status"] == "succeeded", ended.text
        content: httpx.Response = client.get(f"/admin/v1/requests/{job['id']}/content")
    return content.content
