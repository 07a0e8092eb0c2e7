"""The configs that come with disagctl: the sizes that are published, and what follows for experts, formats and offloading."""

import json
from importlib.resources import files
from typing import Any

import pytest

from planner.domain import Shape
from planner.facts.flops import Unknown, work_from_configs
from planner.facts.work import ModelWork

ENTRIES: dict[str, dict[str, Any]] = json.loads(files("disagctl.data").joinpath("model-configs.json").read_text())
CLIP = Shape(832, 480, 81, 40, guidance=True)


def work_of(name: str, *, split: bool = False) -> ModelWork:
    work = work_from_configs(ENTRIES[name]["index"], ENTRIES[name]["components"], split=split)
    assert isinstance(work, ModelWork)
    return work


def billions(work: ModelWork) -> list[float]:
    return [round(stage.count / 1e9, 2) for stage in work.stages]


@pytest.mark.parametrize("name", ENTRIES)
def test_all_can_be_estimated(name: str) -> None:
    assert all(stage.count for stage in work_of(name).stages)


def test_published_sizes() -> None:
    assert billions(work_of("Qwen-Image"))[:2] == [8.29, 20.43]  # the encoder with its eyes
    assert billions(work_of("Wan2.2-T2V-A14B"))[:2] == [5.68, 28.58]


def test_experts_as_stages() -> None:
    work = work_of("Wan2.2-T2V-A14B", split=True)
    assert [stage.stage for stage in work.stages] == ["encode", "denoise_high", "denoise_low", "decode"]
    assert billions(work)[1:3] == [14.29, 14.29]
    high, low = work.stages[1:3]
    assert (high.steps(CLIP), low.steps(CLIP)) == (13, 27)  # boundary 0.875, shift 3
    whole = work_of("Wan2.2-T2V-A14B")
    assert work.passes(high, CLIP) + work.passes(low, CLIP) == whole.passes(whole.stages[1], CLIP) == 80
    one = ENTRIES["Wan2.1-T2V-14B"]
    assert isinstance(work_from_configs(one["index"], one["components"], split=True), Unknown)


def test_what_is_on_the_gpu_when_blocks_are_streamed() -> None:
    """Two blocks of forty, and what is in none."""
    encode, denoise = work_of("Wan2.1-T2V-14B").stages[:2]
    assert 2 / 40 * denoise.count < denoise.streamed < 3 / 40 * denoise.count
    assert denoise.matrices > 0.99 * denoise.count
    assert (
        0.6 < encode.matrices / encode.count < 0.7
    )  # UMT5's vocabulary stays, and what transformers keeps from bitsandbytes
    assert encode.streamed > 256384 * 4096


def test_tiles_bound_what_hunyuans_decoder_holds() -> None:
    def activations(width: int, height: int) -> float:
        shape = Shape(width, height, 129, 50)
        return work_of("HunyuanVideo").facts("h", [shape]).stages[-1].costs[0].activation_gib

    assert activations(1280, 720) - activations(640, 360) < 3.0  # the pictures themselves
