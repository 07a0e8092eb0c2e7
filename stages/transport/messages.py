"""What is said on data sockets, and reading its first frame, from whoever it may be."""

from typing import Final

import msgspec

MAX_HEADER_BYTES: Final = 4096  # longer ones are not decoded


class Get(msgspec.Struct, frozen=True, tag="get", array_like=True):
    """Read ``length`` bytes at ``offset`` of tensor ``index`` of parcel ``key``. The answer is [Get, bytes]."""

    key: str
    index: int
    offset: int
    length: int


class Put(msgspec.Struct, frozen=True, tag="put", array_like=True):
    """Upload a chunk of an artefact: frames [Put, bytes]. ``total`` bytes in all, ``checksum`` of the whole."""

    key: str
    offset: int
    total: int
    checksum: int


class DataError(msgspec.Struct, frozen=True, tag="error", array_like=True):
    """The data server cannot serve this. code: gone | bad_request | full | failed."""

    key: str
    code: str


DataMessage = Get | Put | DataError

_decoder: Final[msgspec.msgpack.Decoder[DataMessage]] = msgspec.msgpack.Decoder(DataMessage)


def read_header(head: bytes) -> Get | Put | DataError | None:
    """The message, None when it is unreadable."""
    if len(head) > MAX_HEADER_BYTES:
        return None
    try:
        return _decoder.decode(head)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        # msgspec lets the last two through: invalid UTF-8 in a string, and nesting too deep to skip.
        return None
