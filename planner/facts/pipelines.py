"""What a pipeline does that its components' configs do not tell: text length, guidance, packing of the latent."""

from collections.abc import Mapping
from typing import Any

import msgspec

Config = Mapping[str, Any]
EXPERT_STAGES = ("denoise_high", "denoise_low")  # of Wan 2.2 A14B, where its experts are stages of their own
WAN_SHIFT = 3.0  # of the schedule, where the scheduler's config is not at hand
T5_BESIDE_CLIP = 256  # tokens that Stable Diffusion 3 gives its T5, beside CLIP's 77


class Pipeline(msgspec.Struct, frozen=True):
    """``text``: tokens the denoiser sees for an ordinary prompt. ``extra``: of the template, which only the encoder sees.

    ``guided``: classifier-free guidance by default, two passes a step. ``pack``: latent positions a token spans along an
    edge, where the transformer's config does not tell.
    """

    name: str
    text: int = 512
    guided: bool = True
    pack: int | None = None
    extra: int = 0
    video: bool = False
    from_image: bool = False

    def words(self, encoder: Config) -> int:
        """Tokens that a text encoder reads (CLIP's are its own business)."""
        if encoder.get("model_type") == "t5" and self.name.startswith("StableDiffusion3"):
            return T5_BESIDE_CLIP
        return self.text + self.extra

    def patch(self, denoiser: Config) -> tuple[int, int]:
        """(latent positions a token spans along an edge, latent frames)."""
        size = denoiser.get("patch_size") or (denoiser.get("all_patch_size") or [1])[0]
        time = denoiser.get("patch_size_t") or (denoiser.get("all_f_patch_size") or [1])[0]
        if isinstance(size, (list, tuple)):
            time, size = (size[0] if len(size) > 2 else time), size[-1]
        return self.pack or int(size), int(time)


_KNOWN = (
    Pipeline("Wan", video=True),
    Pipeline("HunyuanVideo", 256, guided=False, extra=95, video=True),
    Pipeline("Flux", guided=False, pack=2),
    Pipeline("QwenImage", 100, extra=34),  # prompts are not padded
    Pipeline("StableDiffusion3", 333),
    Pipeline("StableDiffusion", 77),
    Pipeline("ZImage", 128, guided=False, extra=384),  # Turbo; the encoder pads to 512, and the padding is dropped
)


def first_share(boundary: float, scheduler: Config) -> float:
    """Share of the steps that the first of two experts computes: those at or above ``boundary`` (of the training steps).

    Flow matching's schedule falls evenly and is then bent by its shift: σ = shift·s / (1 + (shift − 1)·s).
    """
    shift = float(scheduler.get("flow_shift") or scheduler.get("shift") or WAN_SHIFT)
    return 1 - boundary / (shift - (shift - 1) * boundary)


def pipeline_of(name: str) -> Pipeline:
    """By the beginning of the pipeline's class name; an unknown one is taken to be guided and to read 512 tokens."""
    known = next((one for one in _KNOWN if name.startswith(one.name)), None)
    from_image = any(word in name for word in ("ImageToVideo", "I2V", "Img2Img", "Image2Image", "Kontext", "Edit"))
    if known is not None:
        return msgspec.structs.replace(known, from_image=from_image)
    video = any(word in name for word in ("Video", "LTX", "Mochi", "Allegro"))
    return Pipeline(name or "an unnamed pipeline", video=video, from_image=from_image)
