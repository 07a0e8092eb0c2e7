"""Pixels → file bytes, the same bytes every time: no timestamps, one encoder thread, bit-exact flags."""

from collections.abc import Mapping
from fractions import Fraction
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import av
import numpy as np
import numpy.typing as npt
from PIL import Image

from stages.models.base import File, ModelCard, RequestError

Pixels = npt.NDArray[np.uint8]
IMAGE_FORMATS: Final = ("png", "jpeg", "webp")
VIDEO_FORMATS: Final = ("mp4",)
DEFAULT_FPS: Final = 16
_IMAGE_OPTIONS: Final[dict[str, dict[str, Any]]] = {
    "png": {"compress_level": 4},
    "jpeg": {"quality": 95, "subsampling": 0},
    "webp": {"quality": 92, "method": 4},
}
# One thread, the bitexact flags and no macroblock tree make the bytes reproducible: with the tree, x264 gave up to a
# dozen different files for the same frames, also on one thread. crf 18 is visually lossless.
_X264_OPTIONS: Final = {"crf": "18", "preset": "medium", "threads": "1", "mbtree": "0", "flags": "+bitexact"}
_MP4_OPTIONS: Final = {"movflags": "+faststart", "fflags": "+bitexact"}


def to_uint8(values: npt.NDArray[Any]) -> Pixels:
    """Floats in [0, 1] (or bytes, as they are) → bytes, rounded to the nearest."""
    if values.dtype == np.uint8:
        return values
    return np.clip(np.rint(np.asarray(values, dtype=np.float32) * 255.0), 0, 255).astype(np.uint8)


def encode_image(pixels: Pixels, output_format: str | None = None) -> File:
    """One picture, height × width × 3, as PNG (the default), JPEG or WebP. Raises RequestError for another format."""
    name = _checked(output_format or "png", IMAGE_FORMATS)
    if pixels.ndim != 3 or pixels.shape[2] != 3:
        msg = f"a picture is height × width × 3, not {pixels.shape}"
        raise ValueError(msg)
    out = BytesIO()
    Image.fromarray(pixels).save(out, format=name.upper(), **_IMAGE_OPTIONS[name])
    return File(f"image/{name}", out.getvalue())


def encode_video(frames: Pixels, fps: float | None = None, output_format: str | None = None) -> File:
    """Frames × height × width × 3 as MP4 (H.264, yuv420p, index at the front).

    ``fps``: frames a second, 16 if not given. Odd sizes are extended by one line, because yuv420p halves both edges.
    """
    _checked(output_format or "mp4", VIDEO_FORMATS)
    if frames.ndim != 4 or frames.shape[3] != 3 or not len(frames):
        msg = f"a video is frames × height × width × 3, not {frames.shape}"
        raise ValueError(msg)
    frames = _even(frames)
    with TemporaryDirectory(prefix="disagctl-") as folder:  # faststart reads back what was written, by name
        path = Path(folder) / "out.mp4"
        with av.open(str(path), "w", format="mp4", container_options=dict(_MP4_OPTIONS)) as file:
            stream = _stream(file, frames.shape[2], frames.shape[1], fps or DEFAULT_FPS)
            for pixels in frames:
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
                file.mux(stream.encode(frame.reformat(format="yuv420p", dst_colorspace="ITU709")))
            file.mux(stream.encode())
        return File("video/mp4", path.read_bytes())


def encode_result(result: Any, card: ModelCard, params: Mapping[str, Any]) -> File:
    """The first picture or video of a pipeline's output as a file."""
    pixels = to_uint8(np.asarray(result[0]))
    if card.modality == "video":
        return encode_video(pixels, params.get("fps") or card.defaults.get("fps"), params.get("output_format"))
    return encode_image(pixels, params.get("output_format"))


def _stream(file: Any, width: int, height: int, fps: float) -> Any:
    stream = file.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001), options=dict(_X264_OPTIONS))
    stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
    context = stream.codec_context
    context.thread_count = 1
    context.color_range, context.colorspace = 1, 1  # limited range, BT.709: what players assume of HD
    context.color_primaries, context.color_trc = 1, 1
    return stream


def _even(frames: Pixels) -> Pixels:
    height, width = frames.shape[1] % 2, frames.shape[2] % 2
    return np.pad(frames, ((0, 0), (0, height), (0, width), (0, 0)), mode="edge") if height or width else frames


def _checked(name: str, known: tuple[str, ...]) -> str:
    if name not in known:
        msg = f"output_format {name!r} is not one of {', '.join(known)}"
        raise RequestError(msg, param="output_format")
    return name
