"""Wan 2.2 TI2V 5B, text to video: every token has its own timestep, and the VAE is four times smaller in area.

diffusers' modular Wan knows neither; the other Wans are served by the modular adapter.
"""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch

_DEFAULTS: Final = {"width": 1280, "height": 704, "num_frames": 121, "num_inference_steps": 50, "guidance_scale": 5.0}
_TOKENS: Final = 512  # encode_prompt by itself would take 226


class WanExpanded:
    """``WanPipeline`` with ``expand_timesteps``."""

    pipeline_class = "WanPipeline"
    components: Mapping[str, tuple[str, ...]] = {
        "encode": ("text_encoder", "tokenizer"),
        "denoise": ("transformer", "scheduler"),
        "decode": ("vae",),
    }

    def serves(self, index: Mapping[str, Any]) -> bool:
        """Only repositories whose pipeline expands its timesteps."""
        return index.get("_class_name") == self.pipeline_class and bool(index.get("expand_timesteps"))

    def encode(self, pipe: Any, params: Mapping[str, Any]) -> dict[str, Any]:
        """UMT5's hidden states, and the negative prompt's where guidance is on."""
        length = params.get("max_sequence_length") or _TOKENS
        positive, negative = pipe.encode_prompt(
            params["prompt"], params.get("negative_prompt"), _scale(params) > 1, max_sequence_length=length
        )
        return {"prompt_embeds": positive, "negative_prompt_embeds": negative}

    def begin(
        self, pipe: Any, params: Mapping[str, Any], wire: Mapping[str, Any], generator: torch.Generator
    ) -> dict[str, Any]:
        """As the pipeline does, in its order: timesteps, then noise."""
        asked = _DEFAULTS | {name: params[name] for name in _DEFAULTS if params.get(name) is not None}
        device, dtype = pipe._execution_device, pipe.transformer.dtype
        pipe.scheduler.set_timesteps(asked["num_inference_steps"], device=device)
        latents = pipe.prepare_latents(
            1,
            pipe.transformer.config.in_channels,
            asked["height"],
            asked["width"],
            asked["num_frames"],
            torch.float32,
            device,
            generator,
        )
        pipe.scheduler.set_begin_index(0)
        negative = wire["negative_prompt_embeds"]
        return {
            "prompt_embeds": wire["prompt_embeds"].to(dtype),
            "negative_prompt_embeds": None if negative is None else negative.to(dtype),
            "guidance_scale": _scale(params),
            "timesteps": pipe.scheduler.timesteps,
            "latents": latents,
        }

    def step(self, pipe: Any, values: dict[str, Any], i: int) -> None:
        """The conditional pass, the unconditional one where guidance is on, one step of the scheduler."""
        t, latents = values["timesteps"][i], values["latents"]
        # One timestep a token: tokens are 2×2 latent pixels. For text to video they are all the same.
        grid = torch.ones(latents.shape[2:], dtype=torch.float32, device=latents.device)[:, ::2, ::2]
        timestep = (grid * t).flatten().unsqueeze(0).expand(latents.shape[0], -1)
        noise = _predict(pipe.transformer, latents, timestep, values["prompt_embeds"], "cond")
        if values["guidance_scale"] > 1:
            away = _predict(pipe.transformer, latents, timestep, values["negative_prompt_embeds"], "uncond")
            noise = away + values["guidance_scale"] * (noise - away)
        values["latents"] = pipe.scheduler.step(noise, t, latents, return_dict=False)[0]

    def decode(self, pipe: Any, latents: torch.Tensor) -> npt.NDArray[np.float32]:
        """Undo the VAE's normalisation, decode, bring to [0, 1]."""
        config = pipe.vae.config
        latents = latents.to(pipe.vae.dtype)
        shape = (1, config.z_dim, 1, 1, 1)
        mean = torch.tensor(config.latents_mean).view(shape).to(latents.device, latents.dtype)
        inverse_std = 1.0 / torch.tensor(config.latents_std).view(shape).to(latents.device, latents.dtype)
        video = pipe.vae.decode(latents / inverse_std + mean, return_dict=False)[0]
        frames: npt.NDArray[np.float32] = pipe.video_processor.postprocess_video(video, output_type="np")[0]
        return frames


def _scale(params: Mapping[str, Any]) -> float:
    given = params.get("guidance_scale")
    return float(_DEFAULTS["guidance_scale"] if given is None else given)


def _predict(model: Any, latents: torch.Tensor, timestep: torch.Tensor, embeds: torch.Tensor, context: str) -> Any:
    with model.cache_context(context):
        return model(
            hidden_states=latents.to(model.dtype),
            timestep=timestep,
            encoder_hidden_states=embeds,
            attention_kwargs=None,
            return_dict=False,
        )[0]
