"""Just enough of PNG to write a small picture without Pillow, in microseconds."""

import zlib
from functools import lru_cache
from struct import pack
from typing import Final

SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
PAD_CHUNK: Final = b"diSg"  # ancillary, private, safe to copy: every reader skips it
_STORED_MAX: Final = 65_535


def chunk(kind: bytes, data: bytes) -> bytes:
    """One PNG chunk with its length and checksum."""
    return b"".join((pack(">I", len(data)), kind, data, pack(">I", zlib.crc32(data, zlib.crc32(kind)))))


_END: Final = chunk(b"IEND", b"")


def picture(width: int, height: int, rgb: bytes, at_least: int = 0) -> bytes:
    """A valid RGB PNG of ``rgb`` (height × width × 3 bytes), padded to ``at_least`` bytes by a private chunk.

    Only for small pictures: the scanlines must fit one stored deflate block (65,535 bytes).
    """
    row = width * 3
    lines = b"".join([b"\0" + rgb[i : i + row] for i in range(0, height * row, row)])
    if len(rgb) != height * row or len(lines) > _STORED_MAX:
        msg = f"{len(rgb)} bytes are not a small picture of {width}×{height}"
        raise ValueError(msg)
    head = _header(width, height)
    body = chunk(b"IDAT", _stored(lines))
    missing = at_least - len(head) - len(body) - len(_END)
    return b"".join((head, body, _padding(missing) if missing > 0 else b"", _END))


@lru_cache(maxsize=8)
def _header(width: int, height: int) -> bytes:
    return SIGNATURE + chunk(b"IHDR", pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))


def _stored(data: bytes) -> bytes:
    """A zlib stream of one uncompressed block: zlib.compress would first allocate a quarter of a megabyte."""
    size = len(data)
    return b"".join((b"\x78\x01\x01", pack("<HH", size, size ^ 0xFFFF), data, pack(">I", zlib.adler32(data))))


@lru_cache(maxsize=8)
def _padding(nbytes: int) -> bytes:
    """A chunk of ``nbytes`` in all; never fewer than the 12 that an empty one takes."""
    return chunk(PAD_CHUNK, bytes(max(nbytes - 12, 0)))
