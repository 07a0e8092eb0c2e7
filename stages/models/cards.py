"""What can be said of a diffusers repository from its JSON files alone. No torch, no diffusers: the head uses this too.

A card says what the gateway must know to check a request and fill in what it leaves out. Families we know have their
published defaults; any other pipeline gets an answer worked out from its class name and its VAE's and transformer's
configs. A ``disagctl.json`` beside ``model_index.json`` (``{"defaults": {"num_inference_steps": 8}}``) has the last word.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from stages.models.base import ModelCard, ModelError

EMBEDDED_GUIDANCE: Final = frozenset({"FluxPipeline", "Flux2Pipeline", "HunyuanVideoPipeline"})  # the scale is an input
STAGES: Final = ("encode", "denoise", "decode")
SPREADABLE: Final = STAGES[1]  # over several GPUs
# Stages of a pipeline with two experts, of which one denoises down to a boundary and the other from there on (Wan 2.2
# A14B), and the component that each owns. The stages take the place of ``denoise`` where the spec wants it.
EXPERTS: Final = {"denoise_high": "transformer", "denoise_low": "transformer_2"}
SPLIT_STAGES: Final = ("encode", *EXPERTS, "decode")
INDEX: Final = "model_index.json"
OVERRIDES: Final = "disagctl.json"
MAX_CONFIG_BYTES: Final = 4 << 20
Config = Mapping[str, Any]


class ModelOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the built-in adapters take as a model's ``options``. experts: ``split`` makes stages of them."""

    experts: Literal["together", "split"] = "together"


@dataclass(frozen=True, slots=True)
class Family:
    """What is known of one pipeline class. ``pack``: latent pixels a token spans, where the config does not tell."""

    modality: str
    workflow: str
    defaults: dict[str, Any] = field(default_factory=dict)
    pack: int | None = None


def _image(width: int, height: int, steps: int, guidance: float, pack: int | None = None) -> Family:
    defaults = {"width": width, "height": height, "num_inference_steps": steps, "guidance_scale": guidance}
    return Family("image", "text2image", defaults, pack)


def _video(
    workflow: str, size: tuple[int, int], frames: int, fps: int, steps: int, guidance: float, pack: int | None = None
) -> Family:
    defaults = {"width": size[0], "height": size[1], "num_frames": frames, "fps": fps}
    return Family("video", workflow, defaults | {"num_inference_steps": steps, "guidance_scale": guidance}, pack)


FAMILIES: Final = {
    "WanPipeline": _video("text2video", (832, 480), 81, 16, 50, 5.0),
    "WanImageToVideoPipeline": _video("image2video", (832, 480), 81, 16, 50, 5.0),
    "HunyuanVideoPipeline": _video("text2video", (1280, 720), 129, 24, 50, 6.0, pack=2),
    "HunyuanVideo15Pipeline": _video("text2video", (848, 480), 121, 24, 50, 6.0),
    "HunyuanVideo15ImageToVideoPipeline": _video("image2video", (848, 480), 121, 24, 50, 6.0),
    "LTXPipeline": _video("text2video", (704, 480), 161, 24, 50, 3.0),
    "LTXImageToVideoPipeline": _video("image2video", (704, 480), 161, 24, 50, 3.0),
    "CogVideoXPipeline": _video("text2video", (720, 480), 49, 8, 50, 6.0),
    "CogVideoXImageToVideoPipeline": _video("image2video", (720, 480), 49, 8, 50, 6.0),
    "MochiPipeline": _video("text2video", (848, 480), 19, 30, 64, 4.5),
    "QwenImagePipeline": _image(1328, 1328, 50, 4.0),
    "FluxPipeline": _image(1024, 1024, 28, 3.5, pack=2),
    "Flux2Pipeline": _image(1024, 1024, 50, 4.0, pack=2),
    "StableDiffusion3Pipeline": _image(1024, 1024, 28, 7.0),
    "StableDiffusionXLPipeline": _image(1024, 1024, 50, 5.0),
    "ZImagePipeline": _image(1024, 1024, 8, 0.0),  # Turbo; a base model says otherwise in its disagctl.json
    "StableDiffusionPipeline": _image(512, 512, 50, 7.5),
}
# (spatial, temporal) compression of VAEs whose config does not state it.
_VAE_CLASSES: Final = {
    "AutoencoderKLWan": (8, 4),
    "AutoencoderKLQwenImage": (8, 4),
    "AutoencoderKLHunyuanVideo": (8, 4),
    "AutoencoderKLLTXVideo": (32, 8),
    "AutoencoderKLCogVideoX": (8, 4),
    "AutoencoderKLMochi": (8, 6),
    "AutoencoderDC": (32, 1),
}


def read_card(folder: Path, options: bytes = b"{}") -> ModelCard:
    """The card of the repository in ``folder``. Raises ModelError when its configs cannot be read or the options do not fit."""
    index = read_config(folder / INDEX)
    name = str(index.get("_class_name", ""))
    if not name:
        msg = f"{folder / INDEX} has no _class_name: it is not a diffusers pipeline"
        raise ModelError(msg)
    vae, denoiser = _component(folder, index, "vae"), _component(folder, index, "transformer", "unet")
    known = FAMILIES.get(name) or _guess(name, index)
    spatial, temporal = compression(vae)
    video = known.modality == "video"
    defaults = known.defaults | _variant(name, index, vae, denoiser, spatial) | _overrides(folder)
    return ModelCard(
        stages=_stages(index, options),
        modality=known.modality,
        workflow=known.workflow,
        size_multiple=spatial * (known.pack or _patch(denoiser)),
        frames_multiple=temporal if video else 1,
        needs_image=known.workflow.startswith("image2"),
        defaults=defaults,
    )


def two_passes(pipeline: str, scale: float | None) -> bool:
    """Whether a step takes two passes of the denoiser with this guidance scale."""
    return pipeline not in EMBEDDED_GUIDANCE and (scale or 0.0) > 1


def is_split(options: Mapping[str, Any]) -> bool:
    """Whether a model's options make stages of its experts."""
    return options.get("experts") == "split"


def parse_options(options: bytes) -> ModelOptions:
    """A model's options. Raises ModelError for what the built-in adapters do not take."""
    try:
        return msgspec.json.decode(options or b"{}", type=ModelOptions)
    except msgspec.DecodeError as err:
        msg = f"the model's options cannot be used: {err}"
        raise ModelError(msg) from err


def _stages(index: Config, options: bytes) -> tuple[str, ...]:
    if parse_options(options).experts == "together":
        return STAGES
    if index.get("boundary_ratio") is None or not all(isinstance(index.get(name), list) for name in EXPERTS.values()):
        msg = "options.experts is split, and the pipeline does not have two experts (as Wan 2.2 A14B has)"
        raise ModelError(msg)
    return SPLIT_STAGES


def read_config(path: Path) -> dict[str, Any]:
    """One JSON object. Raises ModelError naming the file when it is missing, too large or not JSON."""
    try:
        if path.stat().st_size > MAX_CONFIG_BYTES:
            msg = f"{path} is too large for a config"
            raise ModelError(msg)
        return msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    except (OSError, msgspec.DecodeError) as err:
        msg = f"cannot read {path}: {err}"
        raise ModelError(msg) from err


def read_components(folder: Path) -> dict[str, dict[str, Any]]:
    """The config of every component that has one. Raises ModelError."""
    files = [*folder.glob("*/config.json"), *folder.glob("*/scheduler_config.json")]
    return {path.parent.name: read_config(path) for path in sorted(files)}


def compression(vae: Config) -> tuple[int, int]:
    """Pixels per latent pixel along an edge, and frames per latent frame, from a VAE's config."""
    spatial, temporal = _VAE_CLASSES.get(str(vae.get("_class_name")), (8, 1))
    blocks = vae.get("block_out_channels") or vae.get("encoder_block_out_channels")
    if blocks and "_class_name" in vae and vae["_class_name"] not in _VAE_CLASSES:
        spatial = 2 ** (len(blocks) - 1)
    spatial = vae.get("scale_factor_spatial") or vae.get("spatial_compression_ratio") or spatial
    temporal = vae.get("scale_factor_temporal") or vae.get("temporal_compression_ratio") or temporal
    return int(spatial), int(temporal)


def _component(folder: Path, index: Config, *names: str) -> Config:
    """The config of the first of these components that the pipeline has; empty for none."""
    for name in names:
        path = folder / name / "config.json"
        if isinstance(index.get(name), list) and path.is_file():
            return read_config(path)
    return {}


def _patch(denoiser: Config) -> int:
    """Latent pixels along a token's edge."""
    size = denoiser.get("patch_size") or denoiser.get("all_patch_size") or 1
    return int(size[-1]) if isinstance(size, list) else int(size)


def _variant(name: str, index: Config, vae: Config, denoiser: Config, spatial: int) -> dict[str, Any]:
    """Defaults of members of a family that differ from its first: told apart by their configs."""
    if name == "FluxPipeline" and denoiser.get("guidance_embeds") is False:  # schnell: distilled to four steps
        return {"num_inference_steps": 4, "guidance_scale": 0.0}
    if name.startswith("Wan") and index.get("expand_timesteps"):  # 2.2 TI2V 5B
        return {"width": 1280, "height": 704, "num_frames": 121, "fps": 24}
    if name.startswith("Wan") and index.get("boundary_ratio") is not None:  # 2.2 A14B: two experts
        first, second = (4.0, 3.0) if name == "WanPipeline" else (3.5, 3.5)
        return {"num_inference_steps": 40, "guidance_scale": first, "guidance_scale_2": second}
    sample = denoiser.get("sample_size")
    if name.startswith("StableDiffusion") and isinstance(sample, int):
        side = sample * spatial
        return {"width": side, "height": side}
    return {}


def _guess(name: str, index: Config) -> Family:
    """A pipeline class we have no entry for: what its name says, and defaults that most models of the kind take."""
    video = any(word in name for word in ("Video", "Wan", "LTX", "Mochi", "Allegro"))
    from_image = any(word in name for word in ("ImageToVideo", "I2V", "Img2Img", "Image2Image", "Kontext", "Edit"))
    if video:
        return _video("image2video" if from_image else "text2video", (832, 480), 81, 16, 50, 5.0)
    return Family("image", "image2image" if from_image else "text2image", _image(1024, 1024, 50, 5.0).defaults)


def _overrides(folder: Path) -> dict[str, Any]:
    path = folder / OVERRIDES
    if not path.is_file():
        return {}
    defaults = read_config(path).get("defaults", {})
    if not isinstance(defaults, dict):
        msg = f"{path}: defaults must be an object of request fields"
        raise ModelError(msg)
    return defaults
