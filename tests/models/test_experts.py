"""Wan 2.2's two experts as stages of their own: the hand-over is a snapshot at the boundary, and nothing shows it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from planner.domain import Shape
from planner.facts.flops import work_from_configs
from planner.facts.work import ModelWork
from stages.models import registry
from stages.models.base import File, ModelError, StageModel
from stages.models.cards import INDEX, SPLIT_STAGES, read_card, read_components, read_config
from stages.parcel import Parcel
from tests.models.kit import crossed, finish, load, source
from tests.models.reference import reference_bytes
from tests.models.test_families import request_for

Tiny = Callable[[str], Path]
SPLIT = b'{"experts":"split"}'


def load_part(folder: Path, stage: str) -> StageModel:
    model = source(folder, options=SPLIT)
    return registry.choose(model).load(model, stage, "cpu")


def run_to(folder: Path, stage: str, params: dict[str, Any]) -> Parcel | None:
    parcel = None
    for name in SPLIT_STAGES[: SPLIT_STAGES.index(stage)]:
        parcel = crossed(finish(load_part(folder, name).start(params, parcel)))
    return parcel


def test_the_card_has_four_stages(tiny_model: Tiny) -> None:
    folder = tiny_model("wan22")
    assert read_card(folder, SPLIT).stages == ("encode", "denoise_high", "denoise_low", "decode")
    assert read_card(folder).stages == ("encode", "denoise", "decode")
    with pytest.raises(ModelError, match="two experts"):
        read_card(tiny_model("wan"), SPLIT)
    with pytest.raises(ModelError, match="expert"):
        read_card(folder, b'{"expert": "split"}')


@pytest.mark.parametrize("steps", [1, 4, 9])
def test_four_stages_equal_one_process(steps: int, tiny_model: Tiny) -> None:
    folder = tiny_model("wan22")
    params = request_for(folder, num_inference_steps=steps)
    result = finish(load_part(folder, "decode").start(params, run_to(folder, "decode", params)))
    assert isinstance(result, File)
    assert result.data == reference_bytes(folder, params)


def test_each_loads_its_own_expert(tiny_model: Tiny) -> None:
    for stage, own in {"denoise_high": "transformer", "denoise_low": "transformer_2"}.items():
        parts = load_part(tiny_model("wan22"), stage).pipeline.components  # type: ignore[attr-defined]
        models = {name for name, part in parts.items() if isinstance(part, torch.nn.Module)}
        assert {name for name in models if not next(parts[name].parameters()).is_meta} == {own}


@pytest.mark.parametrize("stage", ["denoise_high", "denoise_low"])
def test_pause_and_resume_within_a_part(stage: str, tiny_model: Tiny) -> None:
    folder = tiny_model("wan22")
    params = request_for(folder, num_inference_steps=9)
    arrived = run_to(folder, stage, params)
    model = load_part(folder, stage)
    expected = finish(model.start(params, arrived))
    job = model.start(params, arrived)
    assert job.step()
    snapshot = crossed(job.snapshot())
    resumed = load_part(folder, stage).resume(params, snapshot)
    assert (resumed.steps_done, resumed.total_steps) == (job.steps_done, job.total_steps)
    result = finish(resumed)
    assert not isinstance(result, File)
    assert not isinstance(expected, File)
    assert result.tensors == expected.tensors


@pytest.mark.parametrize("steps", [1, 2, 4, 9, 40, 50])
def test_the_planner_counts_the_same_steps(steps: int, tiny_model: Tiny) -> None:
    """Whatever the boundary and the schedule's shift are, the share of each expert is what the worker computes."""
    folder = tiny_model("wan22")
    params = request_for(folder, num_inference_steps=steps)
    high = load_part(folder, "denoise_high")
    job = high.start(params, crossed(finish(load(folder, "encode").start(params, None))))
    work = work_from_configs(read_config(folder / INDEX), read_components(folder), split=True)
    assert isinstance(work, ModelWork)
    shape = Shape(32, 32, 9, steps, guidance=True)
    encode, first, second, decode = work.stages
    assert (encode.stage, first.stage, second.stage, decode.stage) == SPLIT_STAGES
    assert first.steps(shape) == job.total_steps
    assert first.steps(shape) + second.steps(shape) == steps
    assert work.passes(first, shape) == 2 * job.total_steps
    assert first.count == second.count
