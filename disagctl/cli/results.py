"""Fetching what a request made: whole, checked, and never half-written under its final name."""

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO, Final

import xxhash

from disagctl.cli.client import Head
from disagctl.errors import UnexpectedError, UsageError
from disagctl.state import service_of
from disagctl.views import ItemView, JobView

STDOUT: Final = Path("-")
_SUFFIXES: Final = {"image/png": ".png", "image/jpeg": ".jpg", "image/webp": ".webp", "video/mp4": ".mp4"}
_SHORT: Final = 12  # of 32 hexadecimal digits: enough to tell a person's files apart


def save(head: Head, job: JobView, file: Path | None) -> list[Path]:
    """Write every item of a finished job; the files. ``file`` None: names made from the id, in the current folder."""
    if file == STDOUT:
        if len(job.items) > 1:
            raise UsageError(
                "standard output takes one result", why=f"the request has {len(job.items)}", next="name a file"
            )
        with head.content(job.items[0].id) as pieces:
            _copy(pieces, sys.stdout.buffer, job.items[0])
        return []
    saved = []
    for index, item in enumerate(job.items):
        path = target(job, item, index, file)
        _write(head, item, path)
        saved.append(path)
    return saved


def target(job: JobView, item: ItemView, index: int, file: Path | None) -> Path:
    """Where an item goes: the name asked for, numbered when there are several."""
    suffix = _SUFFIXES.get(item.mime or "", ".bin")
    if file is None:
        short = job.id.rpartition("_")[2][:_SHORT]
        file = Path(f"{service_of(job.id)}-{short}{suffix}")
    elif file.is_dir():
        file = file / f"{job.id}{suffix}"
    return file if len(job.items) == 1 else file.with_stem(f"{file.stem}-{index + 1}")


def _write(head: Head, item: ItemView, path: Path) -> None:
    try:
        fd, tmp = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as err:
        raise UsageError(f"cannot write {path}", why=str(err.strerror), next="name another place with -f") from err
    try:
        with os.fdopen(fd, "wb") as out, head.content(item.id) as pieces:
            _copy(pieces, out, item)
        umask = os.umask(0)
        os.umask(umask)
        Path(tmp).chmod(0o666 & ~umask)  # mkstemp is stricter than a user expects of a picture
        Path(tmp).replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(tmp).unlink()
        raise


def _copy(pieces: Iterable[bytes], out: BinaryIO, item: ItemView) -> None:
    """Raises UnexpectedError unless exactly the bytes arrive that the worker made."""
    digest, nbytes = xxhash.xxh3_64(), 0
    for piece in pieces:
        out.write(piece)
        digest.update(piece)
        nbytes += len(piece)
    if nbytes != item.nbytes or (item.checksum and digest.hexdigest() != item.checksum.lower().rjust(16, "0")):
        raise UnexpectedError(
            f"{item.id} did not arrive as it was made", why=f"{nbytes} of {item.nbytes} bytes, or another checksum",
            next="fetch it again", code="corrupt",
        )  # fmt: skip
