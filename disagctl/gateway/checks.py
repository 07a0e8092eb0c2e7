"""What depends on the model: which one, which sizes, how many frames. Makes the params that the stages get."""

import re
from functools import lru_cache
from typing import Any, Final, Literal, NamedTuple

from disagctl.gateway.errors import ApiError, invalid
from disagctl.gateway.fields import MAX_FRAMES, Common, ImageBody, VideoBody
from disagctl.service import ModelInfo
from stages.models.base import ModelCard

Kind = Literal["image", "video"]
MAX_SIDE: Final = 4096
MAX_PIXELS: Final = 4096 * 4096
MAX_VOLUME: Final = 1 << 31  # width × height × frames; no GPU has the memory for more, so it would poison workers
DEFAULT_FPS: Final = 16
_SIZE: Final = re.compile(r"([0-9]{1,5})x([0-9]{1,5})")
_PASSED_ON: Final = ("prompt", "negative_prompt", "num_inference_steps", "guidance_scale", "max_sequence_length")


class Checked(NamedTuple):
    """A request that its model can take."""

    model: ModelInfo
    given: dict[str, Any]  # what the client said, in canonical form
    params: dict[str, Any]  # the same with the model's defaults filled in


def choose_model(models: list[ModelInfo], name: str | None, kind: Kind | None = None) -> ModelInfo:
    """By its name or hub id; without one, the first that makes ``kind``. Raises ApiError."""
    if name is None:
        for model in models:
            if kind is None or model.card.modality == kind:
                return model
        raise _wrong_kind(f"no model of this service makes {kind}s")
    for model in models:
        if name in {model.name, model.id}:
            if kind is not None and model.card.modality != kind:
                raise _wrong_kind(f"{model.name!r} makes {model.card.modality}s, not {kind}s")
            return model
    known = ", ".join(model.name for model in models) or "none"
    raise ApiError(404, f"there is no model {name!r}; models here: {known}", code="model_not_found", param="model")


def check(body: ImageBody | VideoBody, model: ModelInfo) -> Checked:
    """Check ``body`` against the model's card. Raises ApiError naming the field at fault."""
    if body.stream:
        raise invalid("stream", "streaming is not offered; poll or wait", code="unsupported_value")
    if not body.prompt.strip():
        raise invalid("prompt", "must not be blank")
    given = {name: value for name in _PASSED_ON if (value := getattr(body, name)) is not None}
    given |= _size(body, model.card)
    given["output_format"] = body.output_format or model.card.defaults.get("output_format") or _format(body)
    if isinstance(body, VideoBody):
        given |= _frames(body, model.card)
    params = model.card.defaults | given
    if params.get("width", 0) * params.get("height", 0) * params.get("num_frames", 1) > MAX_VOLUME:
        raise invalid("num_frames", f"width × height × frames may be at most {MAX_VOLUME}")
    return Checked(model, given, params)


def check_upload(model: ModelInfo, upload: bytes | None) -> None:
    """A picture where the model needs one, and only there: it would otherwise be ignored in silence."""
    if model.card.needs_image and upload is None:
        message = f"{model.name!r} turns a picture into something: send one"
        raise invalid("input_reference", message, code="missing_required_parameter")
    if upload is not None and not model.card.needs_image:
        raise invalid("input_reference", f"{model.name!r} takes no picture", code="unsupported_value")


def clip_seconds(params: dict[str, Any], frames_multiple: int) -> str:
    """How long a video is. Of k·m+1 frames the first starts the clock, as is the habit: 81 at 16 fps are 5 seconds."""
    frames, fps = params.get("num_frames", 1), params.get("fps", DEFAULT_FPS)
    seconds = (frames - 1 if frames_multiple > 1 else frames) / fps
    return f"{seconds:.2f}".rstrip("0").rstrip(".")


def _format(body: ImageBody | VideoBody) -> str:
    return "mp4" if isinstance(body, VideoBody) else "png"


def _size(body: Common, card: ModelCard) -> dict[str, int]:
    if body.size is None or body.size == "auto":
        return {}
    width, height = _sides(body.size, card.size_multiple)
    return {"width": width, "height": height}


@lru_cache(maxsize=256)
def _sides(size: str, step: int) -> tuple[int, int]:
    """Width and height. Raises ApiError."""
    match = _SIZE.fullmatch(size)
    if match is None:
        raise invalid("size", f"must look like 832x480, or be auto; got {size!r}")
    width, height = int(match[1]), int(match[2])
    if not all(step <= side <= MAX_SIDE and side % step == 0 for side in (width, height)):
        near = "x".join(str(_nearest(side, step)) for side in (width, height))
        raise invalid("size", f"sides must be multiples of {step} from {step} to {MAX_SIDE}; the nearest is {near}")
    if width * height > MAX_PIXELS:
        raise invalid("size", f"{width}x{height} is more than {MAX_PIXELS} pixels")
    return width, height


def _nearest(side: int, step: int) -> int:
    return min(max(round(side / step), 1), MAX_SIDE // step) * step


def _frames(body: VideoBody, card: ModelCard) -> dict[str, int]:
    fps = body.fps or card.defaults.get("fps") or DEFAULT_FPS
    out = {"fps": fps}
    step = card.frames_multiple
    if body.num_frames is not None:
        if body.seconds is not None:
            raise invalid("num_frames", "give seconds or num_frames, not both")
        if (body.num_frames - 1) % step:
            below = body.num_frames - (body.num_frames - 1) % step
            near = " or ".join(str(n) for n in (below, below + step) if n <= MAX_FRAMES)
            raise invalid("num_frames", f"this model takes k × {step} + 1 frames; the nearest are {near}")
        out["num_frames"] = body.num_frames
    elif body.seconds is not None:
        wanted = _seconds(body.seconds) * fps
        if wanted > MAX_FRAMES:
            raise invalid("seconds", f"{wanted:.0f} frames at {fps} fps are more than {MAX_FRAMES}")
        out["num_frames"] = max(0, int((wanted - 1) / step + 0.5)) * step + 1
    return out


def _seconds(value: str | float) -> float:
    try:
        seconds = float(value)
    except ValueError:
        raise invalid("seconds", "must be a number") from None
    if not 0 < seconds <= MAX_FRAMES:  # NaN fails this too
        raise invalid("seconds", f"must be more than 0 and at most {MAX_FRAMES}")
    return seconds


def _wrong_kind(message: str) -> ApiError:
    return invalid("model", message, code="wrong_modality")
