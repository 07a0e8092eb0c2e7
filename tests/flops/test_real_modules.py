"""Against the real thing at tiny size: parameters counted in instances, FLOPs counted while the stages run."""

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
import transformers
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from planner.domain import Shape
from planner.facts.denoisers import DENOISERS
from planner.facts.flops import work_from_configs
from planner.facts.tally import Tally
from planner.facts.work import ModelWork, StageWork
from stages.parcel import Parcel, unpack
from tests.flops.repos import read
from tests.models.kit import crossed, finish, load, picture, upload
from tests.tiny import FAMILIES, VIDEO

SHAPES_MODEL = Path(__file__).parents[2] / "examples" / "shapes" / "model"
UNPADDED = {"qwenimage", "zimage"}  # the number of text tokens depends on the prompt
PADDED = {"sd3": 256, "hunyuan": 256}  # to this many tokens; the others to 512
TinyModel = Callable[[str], Path]


def folder_of(tiny_model: TinyModel, family: str) -> Path:
    return SHAPES_MODEL if family == "shapes" else tiny_model(family)


def parameters(folder: Path, name: str, kind: list[str]) -> int:
    if kind[0] == "diffusers":
        model = getattr(diffusers, kind[1]).from_config(json.loads((folder / name / "config.json").read_text()))
    else:
        made = getattr(transformers, kind[1])
        model = made(made.config_class.from_pretrained(folder / name))
    return sum(weight.numel() for weight in model.parameters())  # those that are tied are one


@pytest.mark.parametrize("family", [*FAMILIES, "shapes"])
def test_parameters_are_exact(tiny_model: TinyModel, family: str) -> None:
    folder = folder_of(tiny_model, family)
    index, configs = read(folder)
    work = work_from_configs(index, configs)
    assert isinstance(work, ModelWork)
    counted = {name: count for stage in work.stages for name, count in stage.params}
    loaded = [name for name in configs if name.startswith(("text_enc", "image_enc", "transformer", "unet", "vae"))]
    assert sorted(counted) == sorted(loaded)
    assert counted == {name: parameters(folder, name, index[name]) for name in counted}


def counted(model: Any, params: dict[str, Any], inputs: Parcel | None) -> tuple[Any, int]:
    """The stage's output, and its FLOPs as torch counts them."""
    with warnings.catch_warnings(), FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        warnings.simplefilter("ignore")
        out = finish(model.start(params, inputs))
    return out, counter.get_total_flops()


def expected(work: ModelWork, stage: StageWork, shape: Shape) -> float:
    return sum(stage.flops(shape)) * (work.passes(stage, shape) if stage.kind == "transformer" else 1)


@pytest.mark.parametrize("family", [one for one in FAMILIES if one not in UNPADDED])
@pytest.mark.parametrize("size", [(64, 64, 9, 1), (128, 96, 17, 2)])
def test_flops_of_every_stage(tiny_model: TinyModel, family: str, size: tuple[int, int, int, int]) -> None:
    folder = tiny_model(family)
    work = work_from_configs(*read(folder))
    assert isinstance(work, ModelWork)
    width, height, frames, steps = size
    frames = frames if family in VIDEO else 1
    shape = Shape(width, height, frames, steps, guidance=work.guided)
    params = {
        "prompt": "a", "negative_prompt": "", "width": width, "height": height, "num_frames": frames, "seed": 1,
        "num_inference_steps": steps, "guidance_scale": 5.0, "max_sequence_length": PADDED.get(family, 512),
    }  # fmt: skip
    parcel = upload(picture(width, height)) if family == "wan_i2v" else None
    for stage in work.stages:
        out, real = counted(load(folder, stage.stage), params, parcel)
        if family == "hunyuan" and stage.stage == "decode":  # its attention over all frames: see autoencoders.hunyuan
            assert 0.7 * real < expected(work, stage, shape) <= real
        else:
            assert expected(work, stage, shape) == pytest.approx(real, rel=0.01)
        parcel = crossed(out) if stage.stage != "decode" else None


def flops_of(tally: Tally, tokens: int) -> float:
    first, last = 2 * tally.linear[0], 2 * (tally.linear[1] + tally.linear[2])
    return first + last * tokens + sum(2 * c * tokens**i for c, i in zip(tally.attention, (0, 1, 2, 2), strict=True))


@pytest.mark.parametrize("family", sorted(UNPADDED))
def test_flops_where_the_prompt_decides(tiny_model: TinyModel, family: str) -> None:
    folder = tiny_model(family)
    index, configs = read(folder)
    params = {"prompt": "a red ball", "negative_prompt": "a red ball", "width": 128, "height": 128, "seed": 1}
    params |= {"num_inference_steps": 2, "guidance_scale": 5.0}
    parcel = crossed(counted(load(folder, "encode"), params, None)[0])
    words = text_tokens(unpack(parcel))
    _, real = counted(load(folder, "denoise"), params, parcel)
    tally = DENOISERS[index["transformer"][1]](configs["transformer"], words)
    assert flops_of(tally, 64) * 2 * 2 == pytest.approx(real, rel=0.02)


def text_tokens(tree: Any) -> int:
    """Of the first embedding found."""
    embeds = tree["values"]["prompt_embeds"]
    leaf = embeds[0] if isinstance(embeds, list | tuple) else embeds
    return int(leaf.shape[-2])


def test_counting_is_of_this_torch() -> None:
    with FlopCounterMode(display=False) as counter:
        torch.ones(2, 3) @ torch.ones(3, 4)
    assert counter.get_total_flops() == 2 * 2 * 3 * 4
