"""The flight recorder: which task a worker is computing, kept where it survives the worker.

A message that the worker "has sent" may die with it in a library's buffer; a write to a file may not. The agent makes the
file, hands the worker its descriptor, and reads it when the worker has ended: so a crash is charged to the very request that
was being computed, never to one that merely waited beside it.
"""

import os
from typing import Final

import msgspec

from planner.domain import TaskRef

RECORD_BYTES: Final = 8192


class Recorder:
    """The worker's side. ``fd`` None: nobody wants to know."""

    def __init__(self, fd: int | None) -> None:
        self._fd = fd

    def begin(self, *refs: TaskRef) -> None:
        """The next instruction belongs to this task, or to all of a batch."""
        if self._fd is not None:
            data = msgspec.msgpack.encode(refs)[: RECORD_BYTES - 2]
            os.pwrite(self._fd, len(data).to_bytes(2, "little") + data, 0)

    def end(self) -> None:
        """Nothing is being computed."""
        if self._fd is not None:
            os.pwrite(self._fd, b"\0\0", 0)


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
