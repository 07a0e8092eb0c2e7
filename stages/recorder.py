"""The flight recorder: which tasks a worker is computing, kept where it survives the worker.

A message that the worker "has sent" may die with it in a library's buffer; a page shared with a file may not. The agent makes
the file, hands the worker its descriptor, and reads it when the worker has ended: so a crash is charged to the very request
that was being computed, never to one that merely waited beside it.
"""

import mmap
import os
from typing import Final

import msgspec

from planner.domain import TaskRef

RECORD_BYTES: Final = 8192
_NOTHING: Final = b"\0\0"

_encoder: Final = msgspec.msgpack.Encoder()


class Recorder:
    """The worker's side, for one thread at a time. ``fd`` None: nobody wants to know."""

    def __init__(self, fd: int | None) -> None:
        self._page: mmap.mmap | None = None
        self._written = False
        if fd is not None:
            os.ftruncate(fd, RECORD_BYTES)
            self._page = mmap.mmap(fd, RECORD_BYTES)
            self._page[:2] = _NOTHING

    def begin(self, *refs: TaskRef) -> None:
        """The next instruction belongs to this task, or to all of a batch."""
        if self._page is not None:
            data = _encoder.encode(refs)[: RECORD_BYTES - 2]
            if self._written:
                self._page[:2] = _NOTHING  # the length is written last: half a record is none
            self._page[2 : 2 + len(data)] = data
            self._page[:2] = len(data).to_bytes(2, "little")
            self._written = True

    def end(self) -> None:
        """Nothing is being computed."""
        if self._written and self._page is not None:
            self._page[:2] = _NOTHING
            self._written = False


def read_record(fd: int) -> tuple[TaskRef, ...]:
    """The agent's side: what was being computed, if anything."""
    data = os.pread(fd, RECORD_BYTES, 0)
    length = int.from_bytes(data[:2], "little")
    if not length:
        return ()
    try:
        return msgspec.msgpack.decode(data[2 : 2 + length], type=tuple[TaskRef, ...])
    except (msgspec.DecodeError, UnicodeDecodeError):
        return ()  # it died while writing: nothing had begun
