"""HunyuanVideo 1.0: text to video; the guidance scale is embedded, so one pass a step."""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch

_DEFAULTS: Final = {"width": 1280, "height": 720, "num_frames": 129, "num_inference_steps": 50, "guidance_scale": 6.0}
_EMBEDS: Final = ("prompt_embeds", "pooled_prompt_embeds", "prompt_attention_mask")


class HunyuanVideo:
    """``HunyuanVideoPipeline``."""

    pipeline_class = "HunyuanVideoPipeline"
    components: Mapping[str, tuple[str, ...]] = {
        "encode": ("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2"),
        "denoise": ("transformer", "scheduler"),
        "decode": ("vae",),
    }

    def serves(self, index: Mapping[str, Any]) -> bool:
        """Every repository of the class."""
        return index.get("_class_name") == self.pipeline_class

    def encode(self, pipe: Any, params: Mapping[str, Any]) -> dict[str, Any]:
        """Llama's hidden states with their mask, and CLIP's pooled embedding."""
        length = params.get("max_sequence_length") or 256
        return dict(zip(_EMBEDS, pipe.encode_prompt(prompt=params["prompt"], max_sequence_length=length), strict=True))

    def begin(
        self, pipe: Any, params: Mapping[str, Any], wire: Mapping[str, Any], generator: torch.Generator
    ) -> dict[str, Any]:
        """As the pipeline does, in its order: timesteps, noise, embedded guidance."""
        asked = _DEFAULTS | {name: params[name] for name in _DEFAULTS if params.get(name) is not None}
        device, dtype = pipe._execution_device, pipe.transformer.dtype
        steps = asked["num_inference_steps"]
        pipe.scheduler.set_timesteps(sigmas=np.linspace(1.0, 0.0, steps + 1)[:-1], device=device)
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
        guidance = torch.tensor([asked["guidance_scale"]], dtype=dtype, device=device) * 1000.0
        embeds = {name: wire[name].to(dtype) for name in _EMBEDS}
        return embeds | {"timesteps": pipe.scheduler.timesteps, "latents": latents, "guidance": guidance}

    def step(self, pipe: Any, values: dict[str, Any], i: int) -> None:
        """One pass of the transformer, one step of the scheduler."""
        t, latents = values["timesteps"][i], values["latents"]
        with pipe.transformer.cache_context("cond"):
            noise = pipe.transformer(
                hidden_states=latents.to(pipe.transformer.dtype),
                timestep=t.expand(latents.shape[0]).to(latents.dtype),
                encoder_hidden_states=values["prompt_embeds"],
                encoder_attention_mask=values["prompt_attention_mask"],
                pooled_projections=values["pooled_prompt_embeds"],
                guidance=values["guidance"],
                attention_kwargs=None,
                return_dict=False,
            )[0]
        values["latents"] = pipe.scheduler.step(noise, t, latents, return_dict=False)[0]

    def decode(self, pipe: Any, latents: torch.Tensor) -> npt.NDArray[np.float32]:
        """Undo the VAE's scaling, decode, bring to [0, 1].

        Frames larger than 256 pixels along an edge in overlapping tiles, as the model's authors do: whole, 720p does not fit
        an 80 GB card. Smaller ones the VAE leaves whole.
        """
        pipe.vae.enable_tiling()
        latents = latents.to(pipe.vae.dtype) / pipe.vae.config.scaling_factor
        video = pipe.vae.decode(latents, return_dict=False)[0]
        frames: npt.NDArray[np.float32] = pipe.video_processor.postprocess_video(video, output_type="np")[0]
        return frames
