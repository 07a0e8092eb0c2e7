"""Cards of the repositories people serve, from configs with the fields that the real ones have."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stages.models.base import ModelCard, ModelError
from stages.models.cards import compression, read_card
from tests.tiny import FAMILIES, VIDEO, defaults

WAN_VAE = {"_class_name": "AutoencoderKLWan", "z_dim": 16, "temperal_downsample": [False, True, True]}
WAN_DIT = {"_class_name": "WanTransformer3DModel", "patch_size": [1, 2, 2], "in_channels": 16}
KL = {"_class_name": "AutoencoderKL", "block_out_channels": [128, 256, 512, 512], "latent_channels": 16}
FLUX_DIT = {"_class_name": "FluxTransformer2DModel", "patch_size": 1, "in_channels": 64, "guidance_embeds": True}
HUNYUAN_VAE = {
    "_class_name": "AutoencoderKLHunyuanVideo",
    "block_out_channels": [128, 256, 512, 512],
    "spatial_compression_ratio": 8,
    "temporal_compression_ratio": 4,
}


@pytest.fixture
def repository(tmp_path: Path) -> Callable[..., Path]:
    def make(pipeline: str, extra: dict[str, Any] | None = None, **components: dict[str, Any]) -> Path:
        index: dict[str, Any] = {"_class_name": pipeline} | (extra or {})
        for name, config in components.items():
            index[name] = ["diffusers", config.get("_class_name", "X")]
            (tmp_path / name).mkdir()
            (tmp_path / name / "config.json").write_text(json.dumps(config))
        (tmp_path / "model_index.json").write_text(json.dumps(index))
        return tmp_path

    return make


def facts(card: ModelCard) -> tuple[str, str, int, int]:
    assert card.stages == ("encode", "denoise", "decode")
    assert card.needs_image == card.workflow.startswith("image2")
    for name in ("width", "height"):
        assert card.defaults[name] % card.size_multiple == 0
    if card.modality == "video":
        assert (card.defaults["num_frames"] - 1) % card.frames_multiple == 0
        assert card.defaults["fps"] > 0
    return card.modality, card.workflow, card.size_multiple, card.frames_multiple


def test_wan_21(repository: Callable[..., Path]) -> None:
    card = read_card(repository("WanPipeline", vae=WAN_VAE, transformer=WAN_DIT))
    assert facts(card) == ("video", "text2video", 16, 4)
    assert (card.defaults["num_frames"], card.defaults["fps"], card.defaults["guidance_scale"]) == (81, 16, 5.0)


def test_wan_21_image_to_video(repository: Callable[..., Path]) -> None:
    card = read_card(repository("WanImageToVideoPipeline", vae=WAN_VAE, transformer=WAN_DIT | {"in_channels": 36}))
    assert facts(card) == ("video", "image2video", 16, 4)


def test_wan_22_a14b(repository: Callable[..., Path]) -> None:
    experts = {"transformer": WAN_DIT, "transformer_2": WAN_DIT}
    card = read_card(repository("WanPipeline", {"boundary_ratio": 0.875}, vae=WAN_VAE, **experts))
    assert facts(card) == ("video", "text2video", 16, 4)
    assert (card.defaults["guidance_scale"], card.defaults["guidance_scale_2"]) == (4.0, 3.0)


def test_wan_22_ti2v_5b(repository: Callable[..., Path]) -> None:
    vae = WAN_VAE | {"z_dim": 48, "scale_factor_spatial": 16, "scale_factor_temporal": 4, "patch_size": 2}
    card = read_card(repository("WanPipeline", {"expand_timesteps": True}, vae=vae, transformer=WAN_DIT))
    assert facts(card) == ("video", "text2video", 32, 4)
    assert (card.defaults["width"], card.defaults["height"], card.defaults["fps"]) == (1280, 704, 24)


def test_hunyuan_video(repository: Callable[..., Path]) -> None:
    dit = {"_class_name": "HunyuanVideoTransformer3DModel", "patch_size": 2, "patch_size_t": 1}
    card = read_card(repository("HunyuanVideoPipeline", vae=HUNYUAN_VAE, transformer=dit))
    assert facts(card) == ("video", "text2video", 16, 4)
    assert (card.defaults["width"], card.defaults["num_frames"]) == (1280, 129)


def test_qwen_image(repository: Callable[..., Path]) -> None:
    vae = {"_class_name": "AutoencoderKLQwenImage", "temperal_downsample": [False, True, True]}
    dit = {"_class_name": "QwenImageTransformer2DModel", "patch_size": 2, "in_channels": 64}
    card = read_card(repository("QwenImagePipeline", vae=vae, transformer=dit))
    assert facts(card) == ("image", "text2image", 16, 1)
    assert card.defaults["width"] == 1328


def test_flux(repository: Callable[..., Path]) -> None:
    card = read_card(repository("FluxPipeline", vae=KL, transformer=FLUX_DIT))
    assert facts(card) == ("image", "text2image", 16, 1)
    assert (card.defaults["num_inference_steps"], card.defaults["guidance_scale"]) == (28, 3.5)


def test_flux_schnell(repository: Callable[..., Path]) -> None:
    card = read_card(repository("FluxPipeline", vae=KL, transformer=FLUX_DIT | {"guidance_embeds": False}))
    assert (card.defaults["num_inference_steps"], card.defaults["guidance_scale"]) == (4, 0.0)


def test_sd3(repository: Callable[..., Path]) -> None:
    dit = {"_class_name": "SD3Transformer2DModel", "patch_size": 2, "sample_size": 128}
    card = read_card(repository("StableDiffusion3Pipeline", vae=KL, transformer=dit))
    assert facts(card) == ("image", "text2image", 16, 1)
    assert card.defaults["width"] == 1024


def test_sdxl(repository: Callable[..., Path]) -> None:
    unet = {"_class_name": "UNet2DConditionModel", "sample_size": 128}
    card = read_card(repository("StableDiffusionXLPipeline", vae=KL, unet=unet))
    assert facts(card) == ("image", "text2image", 8, 1)
    assert card.defaults["height"] == 1024


def test_z_image(repository: Callable[..., Path]) -> None:
    dit = {"_class_name": "ZImageTransformer2DModel", "all_patch_size": [2], "in_channels": 16}
    card = read_card(repository("ZImagePipeline", vae=KL, transformer=dit))
    assert facts(card) == ("image", "text2image", 16, 1)
    assert card.defaults["num_inference_steps"] == 8


@pytest.mark.parametrize(
    ("name", "modality", "workflow"),
    [
        ("SkyNewVideoPipeline", "video", "text2video"),
        ("SkyNewImageToVideoPipeline", "video", "image2video"),
        ("SanaPipeline", "image", "text2image"),
        ("FluxKontextPipeline", "image", "image2image"),
    ],
)
def test_others_are_guessed(repository: Callable[..., Path], name: str, modality: str, workflow: str) -> None:
    card = read_card(repository(name))
    assert facts(card)[:2] == (modality, workflow)


def test_the_last_word_is_the_repositorys(repository: Callable[..., Path]) -> None:
    folder = repository("FluxPipeline", vae=KL, transformer=FLUX_DIT)
    (folder / "disagctl.json").write_text('{"defaults": {"num_inference_steps": 8}}')
    card = read_card(folder)
    assert (card.defaults["num_inference_steps"], card.defaults["width"]) == (8, 1024)
    (folder / "disagctl.json").write_text('{"defaults": [1]}')
    with pytest.raises(ModelError, match=r"disagctl\.json"):
        read_card(folder)


@pytest.mark.parametrize("content", ["", "[1]", "{", '{"x": 1}'])
def test_a_broken_index_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "model_index.json").write_text(content)
    with pytest.raises(ModelError, match=r"model_index\.json"):
        read_card(tmp_path)


def test_compression() -> None:
    assert compression({}) == (8, 1)
    assert compression({"_class_name": "AutoencoderTiny", "block_out_channels": [64, 64, 64, 64]}) == (8, 1)
    assert compression({"_class_name": "AutoencoderKL", "block_out_channels": [64, 64]}) == (2, 1)
    assert compression({"_class_name": "AutoencoderKLLTXVideo", "block_out_channels": [1, 2, 3]}) == (32, 8)


@pytest.mark.parametrize("family", FAMILIES)
def test_tiny_models(family: str, tiny_model: Callable[[str], Path]) -> None:
    card = read_card(tiny_model(family))
    assert facts(card)[0] == ("video" if family in VIDEO else "image")
    assert card.defaults.items() >= defaults(family).items()
