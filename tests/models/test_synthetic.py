import json
import subprocess
import sys
import time
from io import BytesIO
from typing import Any

import pytest
from PIL import Image

from stages.models.base import Batching, File, ModelError
from stages.models.synthetic import SyntheticAdapter, SyntheticStage
from stages.parcel import Parcel
from stages.protocol import ModelSource
from tests.models.kit import crossed, finish

ADAPTER = SyntheticAdapter()


def source(options: dict[str, Any] | None = None) -> ModelSource:
    return ModelSource("s", "synthetic", options=json.dumps(options or {}).encode())


def stage(name: str, options: dict[str, Any] | None = None) -> SyntheticStage:
    model = ADAPTER.load(source(options), name, "cpu")
    assert isinstance(model, SyntheticStage)
    return model


def run(options: dict[str, Any], params: dict[str, Any], corrupt: bool = False) -> File:
    parcel: Parcel | None = None
    for name in ADAPTER.card(source(options)).stages:
        result = finish(stage(name, options).start(params, parcel))
        if isinstance(result, File):
            return result
        parcel = crossed(result)
        if corrupt and parcel.nbytes:
            data = bytearray(parcel.buffers[0])
            data[-1] ^= 1
            parcel = Parcel(parcel.tree, parcel.tensors, (memoryview(data),))
    raise AssertionError


def test_default_stages_give_a_picture() -> None:
    file = run({}, {"prompt": "x", "seed": 1})
    assert file.mime == "image/png"
    with Image.open(BytesIO(file.data)) as image:
        image.load()
        assert (image.size, image.mode) == ((8, 8), "RGB")


def test_the_picture_depends_on_everything_that_was_handed_on() -> None:
    options = {"encode": {"out_bytes": 10_000}, "denoise": {"steps": 3, "out_bytes": 77}, "decode": {}}
    same = {"prompt": "x", "seed": 1}
    assert run(options, same) == run(options, same)
    files = {run(options, same).data, run(options, same, corrupt=True).data}
    files |= {run(options, same | change).data for change in ({"seed": 2}, {"prompt": "y"})}
    assert len(files) == 4


def test_checksums_stand_for_the_bytes_where_it_does_not_read_them() -> None:
    options = {"encode": {"out_bytes": 10_000}, "decode": {"reads": False}}
    pictures = [run(options, {"prompt": prompt, "seed": 1}).data for prompt in ("x", "x", "y")]
    assert pictures[0] == pictures[1] != pictures[2]
    assert pictures[0] == run(options, {"prompt": "x", "seed": 1}, corrupt=True).data, "finding that is the transport's"


def test_sizes() -> None:
    options = {"encode": {"out_bytes": 8 << 20}, "decode": {"artifact_bytes": 100_000}}
    parcel = finish(stage("encode", options).start({}, None))
    assert isinstance(parcel, Parcel)
    assert parcel.nbytes == 8 << 20
    file = run(options, {})
    assert len(file.data) == 100_000
    with Image.open(BytesIO(file.data)) as image:
        image.load()


def test_time_is_spread_over_steps() -> None:
    job = stage("denoise", {"denoise": {"seconds": 0.08, "steps": 4}, "decode": {}}).start({}, None)
    assert job.total_steps == 4
    begin = time.monotonic()
    assert job.step()
    assert 0.015 < time.monotonic() - begin < 0.06
    finish(job)
    assert 0.07 < time.monotonic() - begin < 0.3


def test_seconds_per_step_follows_the_request() -> None:
    model = stage("denoise", {"denoise": {"seconds_per_step": 0.001, "steps": 4}, "decode": {}})
    assert model.start({"num_inference_steps": 9}, None).total_steps == 9
    assert model.start({}, None).total_steps == 4
    assert stage("encode", {"encode": {"steps": 2}, "d": {}}).start({"num_inference_steps": 9}, None).total_steps == 2


def test_pause_and_resume() -> None:
    options = {"denoise": {"steps": 4, "out_bytes": 100}, "decode": {}}
    model = stage("denoise", options)
    expected = finish(model.start({"seed": 3}, None))
    job = model.start({"seed": 3}, None)
    job.step()
    resumed = stage("denoise", options).resume({"seed": 3}, crossed(job.snapshot()))
    assert resumed.steps_done == 1
    result = finish(resumed)
    assert isinstance(result, Parcel)
    assert isinstance(expected, Parcel)
    assert (result.tree, result.tensors) == (expected.tree, expected.tensors)


def test_loading_takes_its_time_and_reports_weights() -> None:
    begin = time.monotonic()
    model = stage("encode", {"encode": {"load_s": 0.05, "weights_gib": 2}, "decode": {}})
    assert time.monotonic() - begin >= 0.05
    assert model.peak_bytes == 2 << 30
    stage("encode", {"encode": {"weights_gib": 0.001, "allocate": True}, "decode": {}}).unload()


def test_failing_and_crashing_prompts() -> None:
    model = stage("encode", {"encode": {"fail_prompt": "poison"}, "decode": {}})
    with pytest.raises(RuntimeError, match="told to fail"):
        model.start({"prompt": "some poison"}, None).step()
    model.start({"prompt": "water"}, None).step()
    code = (
        "from stages.models.synthetic import *; s = ModelSource('s', 'synthetic', options=b'{\"e\":{\"crash_prompt\":\"x\"}}');"
        "SyntheticAdapter().load(s, 'e', 'cpu').start({'prompt': 'x'}, None).step()"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=30).returncode == 9


@pytest.mark.parametrize("options", [{"encode": {"secnods": 1}}, {"encode": {"seconds": -1}}, {"encode": {"steps": 0}}])
def test_bad_options(options: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match="options of the synthetic model"):
        ADAPTER.card(source(options))


def test_unknown_stage() -> None:
    with pytest.raises(ModelError, match="it has encode, denoise, decode"):
        stage("paint")


def test_no_torch_and_microseconds() -> None:
    """The head imports these, and a zero-time stage must not be what limits a thousand requests a second."""
    code = """
import sys, time
from stages.models import cards, registry, weights
from stages.protocol import ModelSource
s = ModelSource("s", "synthetic")
adapter = registry.choose(s)
models = [adapter.load(s, stage, "cpu") for stage in adapter.card(s, None).stages]
begin = time.perf_counter()
for seed in range(2000):
    parcel = None
    for model in models:
        job = model.start({"seed": seed, "prompt": "x"}, parcel)
        job.step()
        parcel = job.finish()
assert not {"torch", "diffusers", "transformers", "PIL"} & sys.modules.keys(), sys.modules.keys()
print((time.perf_counter() - begin) / 2000)
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60)
    assert float(done.stdout) < 0.0005


def test_a_batch_takes_as_long_as_its_law_says_and_changes_no_byte(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    monkeypatch.setattr(time, "monotonic", lambda: 0.0)
    model = stage("denoise", {"denoise": {"seconds": 1.0, "steps": 2, "batch_growth": 0.25}})
    requests: list[tuple[dict[str, Any], Parcel | None]] = [({"prompt": text, "seed": 1}, None) for text in "abcde"]
    assert isinstance(model, Batching)
    job = model.start_batch(requests)
    assert job.step()
    assert slept == [0.5 * (1 + 4 * 0.25)]
    snapshot = job.snapshot(1)
    job.leave(1)
    assert not job.step()
    kept = [request for at, request in enumerate(requests) if at != 1]
    assert job.finish() == [finish(model.start(*request)) for request in kept]
    assert finish(model.resume(requests[1][0], snapshot)) == finish(model.start(*requests[1]))
