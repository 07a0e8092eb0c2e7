"""The large models against figures worked out by hand and published ones; what is not known; no torch."""

from typing import Any

import pytest

from planner.domain import ModelFacts, Shape
from planner.facts.encoders import decoder
from planner.facts.flops import Unknown, facts_from_configs, work_from_configs
from planner.facts.unet import unet
from planner.facts.work import ModelWork
from tests.flops.repos import FLUX, KL, T5, WAN, WAN_VAE, large

SHAPE = Shape(1024, 1024, steps=28)


@pytest.mark.parametrize(
    ("name", "size", "linear", "attention"),
    [
        ("wan-1.3b", (832, 480, 81), 0.082, 0.201),
        ("wan-14b", (832, 480, 81), 0.785, 0.893),
        ("wan-14b", (1280, 720, 81), 1.810, 4.714),
        ("wan-5b", (1280, 704, 121), 0.237, 0.280),
        ("hunyuan", (1280, 720, 129), 1.618, 10.45),
        ("flux", (1024, 1024, 1), 0.0595, 0.0149),
        ("qwen", (1024, 1024, 1), 0.057, 0.013),
        ("qwen", (1328, 1328, 1), 0.095, 0.036),
        ("qwen", (2048, 2048, 1), 0.224, 0.200),
        ("sd3.5", (1024, 1024, 1), 0.0239, 0.0073),
    ],
)
def test_pflop_of_a_pass(name: str, size: tuple[int, int, int], linear: float, attention: float) -> None:
    got = large(name).stages[1].flops(Shape(*size, steps=50))
    assert got[0] / 1e15 == pytest.approx(linear, rel=0.03)
    assert got[1] / 1e15 == pytest.approx(attention, rel=0.03)


@pytest.mark.parametrize(
    ("name", "billions"),
    [
        ("wan-14b", 14.29),
        ("wan-1.3b", 1.42),
        ("wan-5b", 5.0),
        ("flux", 11.9),
        ("qwen", 20.43),
        ("sd3.5", 8.06),
        ("hunyuan", 12.82),
    ],
)
def test_published_parameters(name: str, billions: float) -> None:
    assert large(name).stages[1].count / 1e9 == pytest.approx(billions, rel=0.005)


def test_encoders_and_unets_of_published_repositories() -> None:
    vision = {"hidden_size": 1280, "in_chans": 3, "spatial_patch_size": 14}  # the rest is as the class has it
    qwen = {"model_type": "qwen2_5_vl", "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28}
    qwen |= {"num_attention_heads": 28, "num_key_value_heads": 4, "vocab_size": 152064, "vision_config": vision}
    assert decoder(qwen, "Qwen2_5_VLForConditionalGeneration", 512).params == 8_292_166_656
    sdxl = {"block_out_channels": [320, 640, 1280], "layers_per_block": 2, "transformer_layers_per_block": [1, 2, 10]}
    sdxl |= {"down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"]}
    sdxl |= {"up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"], "cross_attention_dim": 2048}
    sdxl |= {"addition_embed_type": "text_time", "projection_class_embeddings_input_dim": 2816}
    assert unet(sdxl | {"in_channels": 4, "out_channels": 4}, 77).params == 2_567_463_684
    sd15 = {"block_out_channels": [320, 640, 1280, 1280], "layers_per_block": 2, "cross_attention_dim": 768}
    sd15 |= {"down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"], "in_channels": 4, "out_channels": 4}
    sd15 |= {"up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3}
    assert unet(sd15, 77).params == 859_520_964


def test_wans_vae_and_text_encoder() -> None:
    encode, _, decode = large("wan-14b").stages
    assert sum(decode.flops(Shape(832, 480, 81))) == pytest.approx(2.7e14, rel=0.03)
    assert sum(decode.flops(Shape(1280, 720, 81))) == pytest.approx(6.3e14, rel=0.03)
    assert encode.count / 1e9 == pytest.approx(5.68, rel=0.005)
    assert sum(encode.flops(Shape(832, 480, 81))) / 2 == pytest.approx(5.0e12, rel=0.06)  # of one prompt


def test_passes_and_facts() -> None:
    wan, flux = large("wan-14b"), large("flux")
    assert wan.passes(wan.stages[1], Shape(832, 480, 81, 4)) == 4
    assert wan.passes(wan.stages[1], Shape(832, 480, 81, 4, guidance=True)) == 8
    assert flux.passes(flux.stages[1], SHAPE) == 28
    shapes = [Shape(832, 480, 81, 50), Shape(1280, 720, 81, 4), Shape(832, 480, 81, 50)]
    facts = wan.facts("wan", shapes, "a config")
    assert [stage.stage for stage in facts.stages] == ["encode", "denoise", "decode"]
    assert [stage.kind for stage in facts.stages] == ["text", "transformer", "vae"]
    assert all([cost.shape for cost in stage.costs] == shapes[:2] for stage in facts.stages)
    assert facts.stages[1].weights_gib == pytest.approx(26.6, rel=0.01)
    assert facts.stages[2].costs[0].megavoxels == pytest.approx(832 * 480 * 81 / 1e6)
    assert all(cost.activation_gib > 0 for stage in facts.stages[1:] for cost in stage.costs)


INDEX: dict[str, Any] = {
    "_class_name": "FluxPipeline", "transformer": ["diffusers", "FluxTransformer2DModel"],
    "vae": ["diffusers", "AutoencoderKL"], "text_encoder": ["transformers", "T5EncoderModel"], "x": [None, None],
}  # fmt: skip
CONFIGS: dict[str, dict[str, Any]] = {"transformer": FLUX, "vae": KL, "text_encoder": T5}


def test_an_unknown_transformer_of_the_usual_build() -> None:
    index = INDEX | {"_class_name": "NewPipeline", "transformer": ["diffusers", "NewTransformer"]}
    work = work_from_configs(index, CONFIGS | {"transformer": WAN, "vae": WAN_VAE | {"block_out_channels": [1]}})
    assert isinstance(work, Unknown)  # AutoencoderKL needs more
    work = work_from_configs(
        index | {"vae": ["diffusers", "AutoencoderKLWan"]}, CONFIGS | {"transformer": WAN, "vae": WAN_VAE}
    )
    assert isinstance(work, ModelWork)
    known = large("wan-14b").stages[1].flops(Shape(832, 480, 81))
    assert sum(work.stages[1].flops(Shape(832, 480, 81))) == pytest.approx(sum(known), rel=0.03)
    assert work.stages[1].count == pytest.approx(large("wan-14b").stages[1].count, rel=0.1)


@pytest.mark.parametrize(
    ("index", "configs", "why"),
    [
        ({}, {}, "no transformer"),
        (INDEX, {}, "no transformer"),
        (INDEX, CONFIGS | {"transformer": {}}, "lacks"),
        (INDEX, CONFIGS | {"transformer": FLUX | {"num_layers": "many"}}, "sense"),
        (INDEX, CONFIGS | {"transformer": FLUX | {"num_layers": 10**9}}, "impossible"),
        (INDEX, CONFIGS | {"vae": KL | {"layers_per_block": 10**9}}, "that many blocks"),
        (INDEX | {"vae": ["diffusers", "AutoencoderNew"]}, CONFIGS | {"vae": {}}, "AutoencoderNew"),
        (INDEX | {"transformer": ["diffusers", "New"]}, CONFIGS | {"transformer": {"num_layers": 3}}, "its transformer, a New"),
        (INDEX, CONFIGS | {"text_encoder": {"model_type": "new"}}, "its text_encoder"),
    ],
)  # fmt: skip
def test_what_is_not_known_says_why(index: dict[str, Any], configs: dict[str, Any], why: str) -> None:
    got = facts_from_configs(index, configs, [SHAPE])
    assert isinstance(got, Unknown)
    assert why in got.reason


def test_facts_from_configs() -> None:
    got = facts_from_configs(INDEX, CONFIGS, [SHAPE], "flux")
    assert isinstance(got, ModelFacts)
    assert (got.model, got.origin) == ("flux", "Flux's configs")
