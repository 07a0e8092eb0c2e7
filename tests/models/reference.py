"""The same request in one process, through the pipeline as diffusers ships it: what stages must equal, byte for byte.

In float32, which is what stages compute in on the CPU unless a dtype is asked for.
"""

import io
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps

from stages.models import media
from stages.models.base import ModelCard
from stages.models.cards import read_card


def reference_bytes(folder: Path, params: dict[str, Any], image: bytes | None = None) -> bytes:
    """The file that ``params`` (merged over the model's defaults) give. ``image``: the file an I2V model starts from."""
    card = read_card(folder)
    params = card.defaults | params
    pixels = media.to_uint8(reference_pixels(folder, params, image))
    if card.modality == "video":
        return media.encode_video(pixels, params.get("fps"), params.get("output_format")).data
    return media.encode_image(pixels, params.get("output_format")).data


def reference_pixels(folder: Path, params: dict[str, Any], image: bytes | None = None) -> np.ndarray:
    """Height × width × 3, for video with frames in front."""
    card = read_card(folder)
    torch.set_num_threads(1)
    pipeline = _pipeline(str(folder), card.workflow)
    picture = _picture(image, params) if image is not None else None
    if hasattr(pipeline, "blocks"):
        return np.asarray(_run_modular(pipeline, card, params, picture)[0])
    return np.asarray(_run_classic(pipeline, params)[0])


@lru_cache(maxsize=4)
def _pipeline(folder: str, workflow: str) -> Any:
    import diffusers
    import transformers
    from diffusers import DiffusionPipeline

    for library in (diffusers, transformers):
        library.utils.logging.set_verbosity_error()
        library.utils.logging.disable_progress_bar()
    config = DiffusionPipeline.load_config(folder)
    if config["_class_name"] == "HunyuanVideoPipeline" or config.get("expand_timesteps"):
        return DiffusionPipeline.from_pretrained(folder, torch_dtype=torch.float32)
    return _modular(folder, workflow)


def _modular(folder: str, workflow: str) -> Any:
    from diffusers import ModularPipeline

    opened = ModularPipeline.from_pretrained(folder)
    blocks = opened.blocks
    if getattr(blocks, "_workflow_map", None):
        blocks = blocks.get_workflow(workflow)
    pipeline = type(opened)(blocks=blocks, pretrained_model_name_or_path=folder)
    for keyword in ("torch_dtype", "dtype"):  # of diffusers 0.39 and of the newest; with the wrong one nothing loads
        missing = [name for name, part in pipeline.components.items() if part is None]
        pipeline.load_components(names=missing, **{keyword: torch.float32})
    assert not [name for name, part in pipeline.components.items() if part is None]
    return pipeline


def _run_modular(pipeline: Any, card: ModelCard, params: dict[str, Any], picture: Image.Image | None) -> Any:
    scale = params["guidance_scale"]
    scales = {"guider": scale, "guider_2": params.get("guidance_scale_2", scale)}
    known = {item.name for item in pipeline.blocks.inputs}
    arguments = {name: value for name, value in params.items() if name in known and value is not None}
    for name, value in scales.items():
        guider = getattr(pipeline, name, None)
        if guider is not None:
            pipeline.update_components(**{name: guider.new(guidance_scale=max(value, 1.0), enabled=value > 1)})
            arguments.pop("guidance_scale", None)
    if picture is not None:
        arguments["image"] = picture
    state = pipeline(
        **arguments,
        generator=torch.Generator().manual_seed(params["seed"]),
        output_type="np" if card.modality == "video" else "pil",
    )
    return state.values["videos" if card.modality == "video" else "images"]


def _run_classic(pipeline: Any, params: dict[str, Any]) -> Any:
    import inspect

    pipeline.set_progress_bar_config(disable=True)
    known = inspect.signature(pipeline.__call__).parameters
    arguments = {name: value for name, value in params.items() if name in known and value is not None}
    generator = torch.Generator().manual_seed(params["seed"])
    return pipeline(**arguments, generator=generator, output_type="np").frames


def _picture(data: bytes, params: dict[str, Any]) -> Image.Image:
    """As the encode stage prepares it: upright, RGB, cropped and scaled to the size asked for."""
    picture = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
    size = (params["width"], params["height"])
    return picture if picture.size == size else ImageOps.fit(picture, size, Image.Resampling.LANCZOS)
