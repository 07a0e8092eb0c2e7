"""The fields of a request: their types and bounds. Unknown ones are refused.

The bounds that depend on the model are checked in ``disagctl.gateway.checks``.
"""

from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta, Raw, field

MAX_SEED: Final = (1 << 63) - 1
MAX_FRAMES: Final = 1025

Prompt = Annotated[str, Meta(min_length=1, max_length=8000)]
NegativePrompt = Annotated[str, Meta(max_length=8000)]
Model = Annotated[str, Meta(min_length=1, max_length=256)]
Size = Annotated[str, Meta(max_length=16, description='"WIDTHxHEIGHT" or "auto"', examples=["832x480"])]
Count = Annotated[int, Meta(ge=1, le=10)]
Seed = Annotated[int, Meta(ge=0, le=MAX_SEED)]
Steps = Annotated[int, Meta(ge=1, le=200)]
Guidance = Annotated[float, Meta(ge=0, le=30)]
Tokens = Annotated[int, Meta(ge=1, le=4096)]
Frames = Annotated[int, Meta(ge=1, le=MAX_FRAMES)]
Fps = Annotated[int, Meta(ge=1, le=60)]
Seconds = Annotated[str, Meta(max_length=16)] | Annotated[float, Meta(gt=0, le=MAX_FRAMES)]


class ImageReference(msgspec.Struct, forbid_unknown_fields=True):
    """A picture by data: URL. No other URL is ever opened."""

    image_url: str


class Common(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What pictures and videos share."""

    prompt: Prompt
    model: Model | None = None
    size: Size | None = None
    negative_prompt: NegativePrompt | None = None
    seed: Seed | None = None
    num_inference_steps: Steps | None = None
    guidance_scale: Guidance | None = None
    max_sequence_length: Tokens | None = None
    input_reference: str | ImageReference | None = None
    stream: bool | None = None
    # The stock client sends these; they mean nothing here. Raw: skipped over, whatever they hold, and never built.
    background: Raw = field(default_factory=Raw)
    moderation: Raw = field(default_factory=Raw)
    output_compression: Raw = field(default_factory=Raw)
    partial_images: Raw = field(default_factory=Raw)
    quality: Raw = field(default_factory=Raw)
    safety_identifier: Raw = field(default_factory=Raw)
    style: Raw = field(default_factory=Raw)
    user: Raw = field(default_factory=Raw)


IGNORED: Final = frozenset(f.name for f in msgspec.structs.fields(Common) if f.type is Raw)


class ImageBody(Common, kw_only=True):
    """``POST /v1/images/generations``."""

    n: Count | None = None
    response_format: Literal["b64_json", "url"] | None = None
    output_format: Literal["png", "jpeg", "webp"] | None = None


class VideoBody(Common, kw_only=True):
    """``POST /v1/videos``."""

    seconds: Seconds | None = None
    num_frames: Frames | None = None
    fps: Fps | None = None
    output_format: Literal["mp4"] | None = None
    n: Annotated[int, Meta(ge=1, le=1)] | None = None


class AdminImageBody(ImageBody, kw_only=True):
    """The same, asked for through the administration socket."""

    kind: Literal["image"] | None = None


class AdminVideoBody(VideoBody, kw_only=True):
    """The same, asked for through the administration socket."""

    kind: Literal["video"] | None = None
