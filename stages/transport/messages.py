"""Reading a data message's first frame, from whoever it may be."""

from typing import Final

import msgspec

from stages.protocol import DataError, DataMessage, Get, Put

MAX_HEADER_BYTES: Final = 4096  # longer ones are not decoded

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
