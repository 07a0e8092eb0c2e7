"""What a request asks for, as planning and the control loop count it: from the stored parameters to a Shape."""

import msgspec

from planner.domain import Shape
from stages.models.base import ModelCard


class _Params(msgspec.Struct):
    """The parameters that decide how much work a request is; others are skipped unread."""

    width: int = 0
    height: int = 0
    num_frames: int = 1
    num_inference_steps: int = 1
    guidance_scale: float | None = None


_DECODER = msgspec.json.Decoder(_Params, strict=False)


def shape_of(params: bytes, card: ModelCard) -> Shape | None:
    """The shape; None for parameters that tell none. Guidance counts where it is not what the model does by itself."""
    try:
        said = _DECODER.decode(params)
    except msgspec.DecodeError:
        return None
    guidance = said.guidance_scale or 0.0
    own = card.defaults.get("guidance_scale", 0.0)
    return Shape(said.width, said.height, said.num_frames, said.num_inference_steps, guidance > 1 and guidance != own)
