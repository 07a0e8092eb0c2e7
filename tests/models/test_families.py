"""Every family as separate stages, bit for bit what one process computes; paused, moved and resumed bit for bit."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from stages.models.base import File, Job, Parkable, Suspendable
from stages.models.cards import STAGES, read_card
from tests.models.kit import crossed, finish, load, picture, run_stages, run_until
from tests.models.reference import reference_bytes
from tests.tiny import FAMILIES, VIDEO

Tiny = Callable[[str], Path]
ALWAYS = ("flux", "wan", "sdxl")  # the quickest with some variety; the others on demand
EVERY = [pytest.param(f, id=f, marks=[] if f in ALWAYS else [pytest.mark.families]) for f in FAMILIES]


def request_for(folder: Path, **fields: Any) -> dict[str, Any]:
    return read_card(folder).defaults | {"prompt": "a red bird", "negative_prompt": "blurry", "seed": 7} | fields


def image_for(folder: Path) -> bytes | None:
    return picture(40, 64) if read_card(folder).needs_image else None  # another aspect than is asked for


@pytest.mark.parametrize("family", EVERY)
def test_three_stages_equal_one_process(family: str, tiny_model: Tiny) -> None:
    folder = tiny_model(family)
    params, image = request_for(folder), image_for(folder)
    result = run_stages(folder, params, image)
    assert result.mime == ("video/mp4" if family in VIDEO else "image/png")
    assert result.data == reference_bytes(folder, params, image)


@pytest.mark.parametrize("family", EVERY)
def test_prompt_and_seed_matter(family: str, tiny_model: Tiny) -> None:
    folder = tiny_model(family)
    image = image_for(folder)
    results = {
        run_stages(folder, request_for(folder, **fields), image).data
        for fields in ({}, {"prompt": "two green fish"}, {"seed": 8}, {"num_inference_steps": 3})
    }
    assert len(results) == 4


@pytest.mark.parametrize("family", EVERY)
def test_pause_other_job_resume_is_exact(family: str, tiny_model: Tiny) -> None:
    folder = tiny_model(family)
    params = request_for(folder)
    arrived = run_until(folder, "denoise", params, image_for(folder))
    model = load(folder, "denoise")
    expected = finish(model.start(params, arrived))

    job = model.start(params, arrived)
    assert (job.total_steps, job.steps_done) == (4, 0)
    assert job.step()
    assert job.step()
    snapshot = crossed(job.snapshot())
    assert model.preemptible  # type: ignore[attr-defined]  # optional for an adapter
    assert isinstance(job, Suspendable)
    job.suspend()
    finish(model.start(request_for(folder, seed=99, num_inference_steps=3, guidance_scale=2.0), arrived))

    suspended = job

    def revived() -> Job:
        suspended.revive()
        return suspended

    ways: list[Callable[[], Job]] = [revived]
    ways += [partial(worker.resume, params, snapshot) for worker in (model, load(folder, "denoise"))]
    for resume in ways:
        resumed = resume()
        assert (resumed.total_steps, resumed.steps_done) == (4, 2)
        result = finish(resumed)
        assert not isinstance(result, File)
        assert not isinstance(expected, File)
        assert result.tree == expected.tree
        assert result.tensors == expected.tensors  # shapes, dtypes and checksums


@pytest.mark.parametrize("family", EVERY)
@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_that_was_parked_computes_the_same(family: str, stage: str, tiny_model: Tiny) -> None:
    folder = tiny_model(family)
    params, image = request_for(folder), image_for(folder)
    arrived = run_until(folder, stage, params, image)
    model = load(folder, stage)
    expected = finish(model.start(params, arrived))
    assert isinstance(model, Parkable)
    model.park()
    model.unpark()
    again = finish(model.start(params, arrived))
    if isinstance(expected, File) or isinstance(again, File):
        assert again == expected
    else:
        assert (again.tree, again.tensors) == (expected.tree, expected.tensors)


@pytest.mark.parametrize("family", EVERY)
def test_a_snapshot_can_be_taken_before_the_first_and_after_the_last_step(family: str, tiny_model: Tiny) -> None:
    folder = tiny_model(family)
    params = request_for(folder)
    model = load(folder, "denoise")
    job = model.start(params, run_until(folder, "denoise", params, image_for(folder)))
    before = crossed(job.snapshot())
    while job.step():
        pass
    after = crossed(job.snapshot())
    expected = job.finish()
    assert not isinstance(expected, File)
    for snapshot in (before, after):
        resumed = model.resume(params, snapshot)
        while resumed.steps_done < resumed.total_steps:
            resumed.step()
        result = resumed.finish()
        assert not isinstance(result, File)
        assert result.tensors == expected.tensors


@pytest.mark.parametrize("family", EVERY)
def test_a_stage_loads_its_own_weights_only(family: str, tiny_model: Tiny) -> None:
    import torch

    folder = tiny_model(family)
    owners = {"encode": {"text_encoder"}, "denoise": {"transformer", "unet"}, "decode": {"vae"}}
    for stage, own in owners.items():
        model: Any = load(folder, stage)
        pipeline = getattr(model, "pipeline", None) or model.pipe
        loaded = {
            name
            for name, part in pipeline.components.items()
            if isinstance(part, torch.nn.Module) and not next(part.parameters()).is_meta
        }
        assert loaded & own
        foreign = set().union(*(names for other, names in owners.items() if other != stage))
        if (family, stage) in {("sdxl", "denoise"), ("wan_i2v", "encode")}:
            foreign -= {"vae"}  # their blocks declare that they need it
        assert not loaded & foreign


@pytest.mark.parametrize("family", [p for p in EVERY if not str(p.id).startswith("wan")])
def test_guidance_off(family: str, tiny_model: Tiny) -> None:
    folder = tiny_model(family)
    params = request_for(folder, guidance_scale=1.0)
    assert run_stages(folder, params).data == reference_bytes(folder, params)


def test_guidance_off_for_wan_equals_the_classic_pipeline(tiny_model: Tiny) -> None:
    """diffusers' modular Wan fails without guidance; ours does not, and agrees with the classic one."""
    import torch
    from diffusers import WanPipeline

    from stages.models import media

    folder = tiny_model("wan")
    params = request_for(folder, guidance_scale=1.0)
    pipeline = WanPipeline.from_pretrained(str(folder))
    pipeline.set_progress_bar_config(disable=True)
    taken = ("prompt", "width", "height", "num_frames", "num_inference_steps", "guidance_scale")
    arguments = {name: params[name] for name in taken}
    frames = pipeline(**arguments, generator=torch.Generator().manual_seed(7), output_type="np").frames[0]
    expected = media.encode_video(media.to_uint8(frames), params["fps"])
    assert run_stages(folder, params) == expected
