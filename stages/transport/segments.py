"""Shared-memory segments: plain files in a tmpfs directory that belongs to the service, written by one, mapped by readers.

Not ``multiprocessing.shared_memory``: its resource tracker unlinks segments that another process still offers, and
starts a process of its own. Here the name is the only handle: the producer unlinks it, mappings outlive it, and a dead
worker's directory is removed whole.

    <service dir, 0700>/<worker, 0700>/<hash of the key>-<random>.seg  (0600); dropped: <random>.idle

Fresh pages are most of what a segment costs, so a segment that is dropped is written again under another name, once nobody
reads it any more. The kernel knows: a reader holds a shared lock on the file for as long as it has it mapped, however it ends.
The first time a file is written, its pages are new, and writing is quickest; from the second on it stays mapped, and copying
into a mapping takes a third less than writing to a file, page by page.
"""

import contextlib
import fcntl
import hashlib
import mmap
import os
import secrets
import shutil
import stat
import sys
import threading
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from stages.parcel import Parcel, layout
from stages.protocol import TensorDesc

_CREATE: Final = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN_DIR: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # NONBLOCK: a FIFO must not hang us
_OPEN_AGAIN: Final = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
_REMOVE_TRIES: Final = 5
KEEP_BYTES: Final = 256 << 20  # of dropped segments
KEEP_FILES: Final = 32
_POPULATE_READ: Final = 22  # madvise: map all pages at once instead of one fault for every sixteen; Linux 5.14
_POPULATE_WRITE: Final = 23


class SegmentError(RuntimeError):
    """The segment cannot be used: not there, not ours, or not what was promised."""


def prepare_dir(directory: Path) -> Path:
    """Make ``directory`` (0700) with its parents and return it resolved. Raises SegmentError when others could meddle.

    /dev/shm is open to every user of the machine, so what we find there need not be ours.
    """
    directory.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    directory.mkdir(mode=0o700, exist_ok=True)
    info = directory.lstat()
    if not stat.S_ISDIR(info.st_mode) or info.st_uid != os.geteuid() or info.st_mode & 0o077:
        msg = f"{directory} must be a directory that only we can enter (mode 0700, no link)"
        raise SegmentError(msg)
    resolved = directory.resolve(strict=True)
    parent = resolved.parent.stat()
    others_write = parent.st_mode & 0o022 and not parent.st_mode & stat.S_ISVTX
    if others_write or parent.st_uid not in {0, os.geteuid()}:
        msg = f"{resolved.parent} lets other users replace {directory.name}"
        raise SegmentError(msg)
    return resolved


class Segment:
    """One parcel in a file. The producer's object; readers use :func:`map_segment`."""

    def __init__(self, path: Path, tensors: Sequence[TensorDesc]) -> None:
        self.path = path
        self._tensors = tuple(tensors)
        self._offsets, self.nbytes = layout(tensors)
        self._map: memoryview | None = None
        self._kept: memoryview | None = None  # to write into

    @classmethod
    def create(cls, directory: Path, key: str, parcel: Parcel) -> "Segment":
        """Write the parcel to a new file. Raises OSError (ENOSPC …) and leaves nothing behind then."""
        segment = cls(_new_path(directory, key), parcel.tensors)
        fd = os.open(segment.path, _CREATE, 0o600)
        try:
            _reserve(fd, segment.nbytes)
            segment._fill(fd, parcel)
        except OSError:
            segment.remove()
            raise
        finally:
            os.close(fd)
        return segment

    def again(self, key: str, parcel: Parcel) -> "Segment | None":
        """This file with another parcel of the same length, under a new name; None while somebody reads it, or it is gone."""
        segment = Segment(_new_path(self.path.parent, key), parcel.tensors)
        try:
            fd = os.open(self.path, _OPEN_AGAIN)
        except OSError:
            return None
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Whoever opened it under its old name and has not locked it yet finds the wrong checksums, if it gets the lock.
            self.path.rename(segment.path)
            self.path = segment.path
            if self._kept is None and self.nbytes:
                self._kept = _writable(segment.path, self.nbytes)
            segment._kept = self._kept
            segment._fill(fd, parcel)
        except OSError:
            return None
        finally:
            os.close(fd)
        return segment

    @property
    def served(self) -> bool:
        """Whether we have mapped it ourselves, to send it: bytes of it may still be on their way."""
        return self._map is not None

    def retire(self) -> bool:
        """Give it a name that was never offered, so that offers of old do not lead to it. False when it is gone."""
        idle = self.path.with_name(f"{secrets.token_hex(16)}.idle")
        try:
            self.path.rename(idle)
        except OSError:
            return False
        self.path = idle
        return True

    def _fill(self, fd: int, parcel: Parcel) -> None:
        for offset, buffer in zip(self._offsets, parcel.buffers, strict=True):
            if self._kept is None:
                _write(fd, buffer, offset)
            elif buffer.nbytes:
                _copy(self._kept[offset : offset + buffer.nbytes], buffer)

    def view(self, index: int) -> memoryview | None:
        """Tensor ``index`` as read-only memory, None when there is none. Maps the file on first use."""
        if not 0 <= index < len(self._tensors):
            return None
        if self._map is None:
            try:
                fd = os.open(self.path, _OPEN_FILE)
            except FileNotFoundError:  # the agent has cleared up after us
                return None
            try:
                self._map = _mapped(fd, self.nbytes, mmap.ACCESS_READ)
            finally:
                os.close(fd)
        start = self._offsets[index]
        return self._map[start : start + self._tensors[index].nbytes]

    def remove(self) -> None:
        """Unlink the file. Memory goes when the last mapping does, so a reader at work is not torn down."""
        self.path.unlink(missing_ok=True)
        self._map = self._kept = None


class SegmentStore:
    """Segments of one worker; dropped ones are kept for parcels of the same length. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle: deque[Segment] = deque()
        self._bytes = 0
        self._closed = False

    def write(self, directory: Path, key: str, parcel: Parcel) -> Segment:
        """The parcel in a segment. Raises OSError when there is no room, also not in place of those kept."""
        _, nbytes = layout(parcel.tensors)
        with self._lock:
            fitting = [segment for segment in self._idle if segment.nbytes == nbytes]
            for segment in fitting:
                self._idle.remove(segment)
                self._bytes -= nbytes
        new: Segment | None = None
        while fitting and new is None:
            old = fitting.pop(0)
            new = old.again(key, parcel)
            if new is None:
                self.drop(old)
        for segment in fitting:
            self.drop(segment)
        if new is not None:
            return new
        try:
            return Segment.create(directory, key, parcel)
        except OSError:
            self.clear()
            return Segment.create(directory, key, parcel)

    def drop(self, segment: Segment) -> None:
        """It is no longer offered."""
        surplus = [segment]
        useful = segment.nbytes > 0 and not segment.served and segment.retire()
        with self._lock:
            if useful and not self._closed:
                self._idle.append(surplus.pop())
                self._bytes += segment.nbytes
            while self._bytes > KEEP_BYTES or len(self._idle) > KEEP_FILES:
                surplus.append(self._idle.popleft())
                self._bytes -= surplus[-1].nbytes
        for old in surplus:
            old.remove()

    def clear(self, *, close: bool = False) -> None:
        """Remove what is kept; after ``close`` nothing is kept any more."""
        with self._lock:
            self._closed |= close
            idle, self._idle, self._bytes = self._idle, deque(), 0
        for segment in idle:
            segment.remove()


def map_segment(root: Path, path: str, tensors: Sequence[TensorDesc]) -> tuple[memoryview, ...]:
    """Map another worker's segment, copy-on-write. ``root``: the service's own directory, resolved.

    Every step of the path is opened relative to the one before and without following links, so what was checked is
    what is mapped. Raises SegmentError. Bytes are not verified here.
    """
    offsets, nbytes = layout(tensors)
    try:
        fd = _open_inside(root, path)
        try:
            info = os.fstat(fd)
            if not stat.S_ISREG(info.st_mode) or info.st_uid != os.geteuid():
                msg = "not a regular file of ours"
                raise SegmentError(msg)
            if info.st_size != nbytes:
                msg = f"{info.st_size} bytes long, {nbytes} were promised"
                raise SegmentError(msg)
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)  # held by the mapping, which keeps the file open
            region = _mapped(fd, nbytes, mmap.ACCESS_COPY, _POPULATE_READ)
        finally:
            os.close(fd)
    except (OSError, ValueError) as err:  # ValueError: a null byte in the path
        raise SegmentError(str(err)) from err
    return tuple(region[at : at + desc.nbytes] for at, desc in zip(offsets, tensors, strict=True))


def remove_worker(root: Path, worker: str) -> None:
    """Remove what a dead worker left. ``root``: the service's directory. Nothing there is fine."""
    if worker in {"", ".", ".."} or "/" in worker or "\0" in worker:
        msg = f"{worker!r} names no worker"
        raise ValueError(msg)
    _remove_tree(root / worker)


def remove_service(root: Path) -> None:
    """Remove the service's directory with the segments of all its workers. Nothing there is fine."""
    _remove_tree(root)


def _remove_tree(path: Path) -> None:
    for _ in range(_REMOVE_TRIES):
        try:
            shutil.rmtree(path)  # never follows links, and refuses a path that is one
        except FileNotFoundError:  # someone else is removing it, too
            if not os.path.lexists(path):
                return
        else:
            return
    shutil.rmtree(path)  # somebody still writes there: say so


def _new_path(directory: Path, key: str) -> Path:
    # Hashed: a key is free text. Random: a name is never used twice, whatever a reader still remembers.
    digest = hashlib.blake2b(key.encode(), digest_size=16).hexdigest()
    return directory / f"{digest}-{secrets.token_hex(4)}.seg"


def _reserve(fd: int, nbytes: int) -> None:
    # A full tmpfs must be an ENOSPC here and not a SIGBUS in whoever touches the mapping.
    if nbytes == 0:
        return
    if sys.platform == "linux":
        os.posix_fallocate(fd, 0, nbytes)
    else:
        os.ftruncate(fd, nbytes)


def _write(fd: int, buffer: memoryview, offset: int) -> None:
    # pwrite and not a copy into a mapping: no page faults, no zeroing of pages that are filled anyway, and no GIL.
    done = 0
    while done < buffer.nbytes:
        done += os.pwrite(fd, buffer[done:], offset + done)


def _writable(path: Path, nbytes: int) -> memoryview:
    """Map it by a descriptor of its own: a mapping keeps its descriptor's lock, and ours is only for the moment of writing."""
    fd = os.open(path, _OPEN_AGAIN)
    try:
        return _mapped(fd, nbytes, mmap.ACCESS_WRITE, _POPULATE_WRITE)
    finally:
        os.close(fd)


def _copy(into: memoryview, buffer: memoryview) -> None:
    import numpy as np  # slow to import; its copies let go of the interpreter's lock

    np.copyto(np.frombuffer(into, np.uint8), np.frombuffer(buffer, np.uint8))


def _mapped(fd: int, nbytes: int, access: int, populate: int | None = None) -> memoryview:
    if not nbytes:
        return memoryview(b"")
    region = mmap.mmap(fd, nbytes, access=access)
    if populate is not None and sys.platform == "linux":
        with contextlib.suppress(OSError):  # an older kernel: then a page at a time, when it is touched
            region.madvise(populate)
    return memoryview(region)


def _open_inside(root: Path, path: str) -> int:
    """Open ``path`` below ``root`` for reading, refusing links and dots on the way."""
    inside = Path(path).relative_to(root).parts  # ValueError when it is elsewhere
    if not inside or ".." in inside:
        msg = "the path leaves the service's directory"
        raise SegmentError(msg)
    at = os.open(root, _OPEN_DIR)
    try:
        for part in inside[:-1]:
            below = os.open(part, _OPEN_DIR, dir_fd=at)
            os.close(at)
            at = below
        return os.open(inside[-1], _OPEN_FILE, dir_fd=at)
    finally:
        os.close(at)
