"""Pictures that clients send: told by their first bytes, measured by their headers, never decoded in this process."""

import binascii
import re
from collections.abc import Callable
from typing import Final

from disagctl.gateway.errors import ApiError, invalid
from disagctl.gateway.fields import ImageReference

PARAM: Final = "input_reference"
MAX_PIXELS: Final = 64_000_000
_DATA_URL: Final = re.compile(r"data:image/[a-z0-9.+-]{1,32};base64,", re.IGNORECASE)
_PNG: Final = b"\x89PNG\r\n\x1a\n"
_START_OF_FRAME: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # those three are tables and an extension
_WITHOUT_LENGTH: Final = frozenset({0x01, *range(0xD0, 0xD8)})
_MAX_SEGMENTS: Final = 4096  # real files have dozens; a hostile one must not keep us walking
_FILL, _START_OF_SCAN, _END_OF_IMAGE = 0xFF, 0xDA, 0xD9


def from_json(value: str | ImageReference) -> bytes:
    """The picture in a data: URL or in bare base64. Raises ApiError; no URL is fetched, whatever it says."""
    text = value.image_url if isinstance(value, ImageReference) else value
    match = _DATA_URL.match(text[:64])
    if match:
        text = text[match.end() :]
    elif ":" in text[:64]:
        raise invalid(PARAM, "send the picture itself: a file upload or a data:image/…;base64,… URL; no URL is fetched")
    try:
        data = binascii.a2b_base64(text, strict_mode=True)
    except ValueError:  # also what is not ASCII
        raise invalid(PARAM, "that is not base64") from None
    return picture(data)


def picture(data: bytes) -> bytes:
    """``data``, if it is a PNG, JPEG or WebP of a bearable size by its own header. Raises ApiError."""
    measure = next((measure for magic, measure in _FORMATS if magic.match(data)), None)
    if measure is None:
        raise invalid(PARAM, "only PNG, JPEG and WebP pictures are taken", code="unsupported_image")
    size = measure(data)
    if size is None or min(size) < 1:
        raise invalid(PARAM, "the picture's header is damaged", code="invalid_image")
    if size[0] * size[1] > MAX_PIXELS:
        raise _too_many_pixels(size)
    return data


def _png(data: bytes) -> tuple[int, int] | None:
    if data[12:16] != b"IHDR" or len(data) < 33:
        return None
    return int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")


def _jpeg(data: bytes) -> tuple[int, int] | None:
    """Walk the segments up to the frame header."""
    at = 2
    for _ in range(_MAX_SEGMENTS):
        if at + 9 >= len(data) or data[at] != _FILL:
            break
        marker = data[at + 1]
        if marker == _FILL:
            at += 1
        elif marker in _WITHOUT_LENGTH:
            at += 2
        elif marker in _START_OF_FRAME:
            return int.from_bytes(data[at + 7 : at + 9], "big"), int.from_bytes(data[at + 5 : at + 7], "big")
        elif marker in {_START_OF_SCAN, _END_OF_IMAGE}:
            return None
        else:
            at += 2 + max(2, int.from_bytes(data[at + 2 : at + 4], "big"))
    return None


def _webp(data: bytes) -> tuple[int, int] | None:
    form = data[12:16]
    if len(data) < 30:
        return None
    if form == b"VP8X":
        return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
    if form == b"VP8L" and data[20] == 0x2F:
        bits = int.from_bytes(data[21:25], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if form == b"VP8 " and data[23:26] == b"\x9d\x01\x2a":
        return int.from_bytes(data[26:28], "little") & 0x3FFF, int.from_bytes(data[28:30], "little") & 0x3FFF
    return None


_Measure = Callable[[bytes], tuple[int, int] | None]
_FORMATS: Final[tuple[tuple[re.Pattern[bytes], _Measure], ...]] = (
    (re.compile(re.escape(_PNG)), _png),
    (re.compile(rb"\xff\xd8\xff"), _jpeg),
    (re.compile(rb"RIFF.{4}WEBP", re.DOTALL), _webp),
)


def _too_many_pixels(size: tuple[int, int]) -> ApiError:
    text = f"{size[0]}x{size[1]} is more than {MAX_PIXELS // 1_000_000} megapixels"
    return invalid(PARAM, text, code="image_too_large")
