"""What is checked before a request costs anything, and the input picture."""

import warnings
from io import BytesIO
from typing import Any, Final

from PIL import Image, ImageOps, UnidentifiedImageError

from stages.models.base import ModelCard, RequestError
from stages.models.media import IMAGE_FORMATS, VIDEO_FORMATS
from stages.parcel import Leaf, Parcel, unpack

INPUT_REFERENCE: Final = "input_reference"
MAX_STEPS: Final = 1000  # the schedulers' training steps
MAX_TOKENS: Final = 1024  # the longest that any family takes; attention grows with its square
MAX_PIXELS: Final = 64_000_000
_PICTURES: Final = ("PNG", "JPEG", "WEBP")


def check(params: dict[str, Any], card: ModelCard) -> None:
    """Sizes, frames, steps, prompt length and format. Raises RequestError naming the parameter at fault."""
    for name in ("width", "height"):
        value = params.get(name)
        if value is not None and (value < card.size_multiple or value % card.size_multiple):
            msg = f"{name} {value} is not a multiple of {card.size_multiple}, which this model needs"
            raise RequestError(msg, param=name)
    frames = params.get("num_frames")
    if frames is not None and card.modality == "video" and (frames < 1 or (frames - 1) % card.frames_multiple):
        msg = f"num_frames {frames} is not a multiple of {card.frames_multiple} plus 1, which this model needs"
        raise RequestError(msg, param="num_frames")
    for name, most in (("num_inference_steps", MAX_STEPS), ("max_sequence_length", MAX_TOKENS)):
        value = params.get(name)
        if value is not None and not 1 <= value <= most:
            msg = f"{name} {value} is not between 1 and {most}"
            raise RequestError(msg, param=name)
    known = IMAGE_FORMATS if card.modality == "image" else VIDEO_FORMATS
    if params.get("output_format") not in (None, *known):
        msg = f"output_format {params['output_format']!r} is not one of {', '.join(known)}"
        raise RequestError(msg, param="output_format")


def input_image(inputs: Parcel | None, card: ModelCard, params: dict[str, Any]) -> Image.Image | None:
    """The request's picture, None if the model takes none. Raises RequestError when it is missing, broken or huge.

    It is cropped and scaled to the size asked for: pipelines would rather keep the picture's aspect, and answer with a
    size that nobody asked for.
    """
    if not card.needs_image:
        return None
    leaf = unpack(inputs).get(INPUT_REFERENCE) if inputs is not None else None
    if not isinstance(leaf, Leaf):
        msg = f"this model needs a picture to start from ({INPUT_REFERENCE})"
        raise RequestError(msg, param=INPUT_REFERENCE)
    image = decode_image(bytes(leaf.data))
    size = (params.get("width") or image.width, params.get("height") or image.height)
    return image if image.size == size else ImageOps.fit(image, size, Image.Resampling.LANCZOS)


def decode_image(data: bytes) -> Image.Image:
    """A PNG, JPEG or WebP file as RGB pixels, turned as its EXIF says. Raises RequestError for anything else."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            Image.open(BytesIO(data), formats=_PICTURES).verify()  # verify leaves the file unusable: open it again
            with Image.open(BytesIO(data), formats=_PICTURES) as picture:
                _check_size(picture)
                return _upright(picture)
    except (UnidentifiedImageError, Image.DecompressionBombError, Image.DecompressionBombWarning) as err:
        msg = f"{INPUT_REFERENCE} is not a PNG, JPEG or WebP picture that can be read: {type(err).__name__}"
        raise RequestError(msg, param=INPUT_REFERENCE) from err
    except (OSError, SyntaxError, ValueError, EOFError) as err:
        if isinstance(err, RequestError):
            raise
        msg = f"{INPUT_REFERENCE} is a broken picture: {err}"
        raise RequestError(msg, param=INPUT_REFERENCE) from err


def _check_size(picture: Image.Image) -> None:
    if picture.width * picture.height > MAX_PIXELS:
        msg = f"{INPUT_REFERENCE} is {picture.width}×{picture.height}, more than {MAX_PIXELS // 1_000_000} megapixels"
        raise RequestError(msg, param=INPUT_REFERENCE)


def _upright(picture: Image.Image) -> Image.Image:
    return ImageOps.exif_transpose(picture).convert("RGB")
