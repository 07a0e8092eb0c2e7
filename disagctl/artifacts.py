"""Finished files on the head's disk: uploaded under a temporary name, verified, fsynced, published by rename.

``<folder>/parts/<hash of key>`` while a worker uploads; ``<folder>/<item id>.<ext>`` once it is the item's one result.
Uploads run on the data server's thread, publishing on a worker thread of the loop; nothing here blocks the loop.
"""

import hashlib
import mmap
import os
from pathlib import Path
from typing import Final

import xxhash

from disagctl.state import write_private
from stages.parcel import Leaf, pack, seal
from stages.protocol import INLINE_BYTES, Artifact, InlineRoute, Offer, ZmqRoute

EXTENSIONS: Final = {"image/png": "png", "image/jpeg": "jpg", "image/webp": "webp", "video/mp4": "mp4"}
MAX_OPEN_UPLOADS: Final = 256
MAX_ARTIFACT_BYTES: Final = 4 << 30


class MissingArtifact(RuntimeError):
    """The upload is not there or not what was promised: the stage has to be computed again."""


class _Upload:
    def __init__(self, path: Path, total: int, checksum: int) -> None:
        self.path, self.total, self.checksum = path, total, checksum
        self.fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        self.at = 0
        self.hash = xxhash.xxh3_64()

    def close(self) -> None:
        os.close(self.fd)


class ArtifactStore:
    """The sink of the head's data server, and the provider of uploaded inputs."""

    def __init__(self, artifacts: Path, inputs: Path) -> None:
        self._folder, self._inputs = artifacts, inputs
        self._parts = artifacts / "parts"
        self._parts.mkdir(mode=0o700, exist_ok=True)
        for left in self._parts.glob(
            "*.new"
        ):  # an upload under way does not survive the head; its worker has the bytes
            left.unlink()
        self._open: dict[str, _Upload] = {}
        self._maps: dict[str, memoryview] = {}

    # --- on the data server's thread --------------------------------------------------------------------------

    def write(self, key: str, offset: int, total: int, checksum: int, data: memoryview) -> str:
        """A chunk of an upload: ``ok``, ``stored`` after the last one, else an error code."""
        if total > MAX_ARTIFACT_BYTES or offset + len(data) > total:
            return "bad_request"
        upload = self._open.get(key)
        if upload is None and offset > 0 and offset + len(data) == total and self._is_stored(key, total):
            return "stored"  # our answer was lost, and the last chunk came again
        try:
            if offset == 0:  # the first chunk, or the uploader starts over
                if upload is not None:
                    self._drop(key)
                if len(self._open) >= MAX_OPEN_UPLOADS:
                    self._drop(next(iter(self._open)))
                upload = self._open[key] = _Upload(self._part(key).with_suffix(".new"), total, checksum)
            if upload is None or upload.at != offset or (upload.total, upload.checksum) != (total, checksum):
                return "bad_request"
            self._append(upload, data)
            return self._complete(key, upload) if upload.at == total else "ok"
        except OSError:
            self._drop(key)
            return "full"

    def _is_stored(self, key: str, total: int) -> bool:
        part = self._part(key)
        return part.is_file() and part.stat().st_size == total

    def _append(self, upload: _Upload, data: memoryview) -> None:
        done = 0
        while done < len(data):
            done += os.write(upload.fd, data[done:])
        upload.hash.update(data)
        upload.at += len(data)

    def _complete(self, key: str, upload: _Upload) -> str:
        os.fsync(upload.fd)
        good = upload.hash.intdigest() == upload.checksum
        upload.close()
        del self._open[key]
        if not good:
            upload.path.unlink(missing_ok=True)
            return "bad_request"
        upload.path.replace(self._part(key))  # whole: the next head may publish it
        return "stored"

    def _drop(self, key: str) -> None:
        upload = self._open.pop(key, None)
        if upload is not None:
            upload.close()
            upload.path.unlink(missing_ok=True)

    def read(self, key: str, index: int, offset: int, length: int) -> memoryview | None:
        """Bytes of an uploaded input. None: there is no such one."""
        if index != 0:
            return None
        view = self._maps.get(key)
        if view is None:
            path = self._inputs / _hashed(key)
            if not path.is_file() or path.stat().st_size == 0:
                return None
            with path.open("rb") as file:
                view = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
            if len(self._maps) >= MAX_OPEN_UPLOADS:
                self._maps.pop(next(iter(self._maps)))
            self._maps[key] = view
        return view[offset : offset + length]

    # --- on a worker thread -----------------------------------------------------------------------------------

    def publish(self, key: str, item: str, artifact: Artifact) -> str:
        """Give the upload its final name, durably; returns the file's name. Raises MissingArtifact, OSError."""
        part = self._part(key)
        name = f"{item}.{EXTENSIONS.get(artifact.mime, 'bin')}"
        final = self._folder / name
        if not part.is_file():
            if final.is_file() and final.stat().st_size == artifact.nbytes:
                return name  # renamed before, but the row was not written
            msg = "the file was not uploaded"
            raise MissingArtifact(msg)
        if part.stat().st_size != artifact.nbytes:
            part.unlink(missing_ok=True)
            msg = "the uploaded file has another length"
            raise MissingArtifact(msg)
        part.replace(final)
        _fsync_folder(self._folder)
        return name

    def discard(self, key: str) -> None:
        """A fenced upload: remove it."""
        self._part(key).unlink(missing_ok=True)

    def put_input(self, job: str, data: bytes) -> None:
        """Keep an uploaded picture, durably."""
        write_private(self._inputs / _hashed(input_key(job)), data)

    def remove(self, job: str, files: list[str]) -> None:
        """Remove a job's files."""
        for name in files:
            (self._folder / name).unlink(missing_ok=True)
        (self._inputs / _hashed(input_key(job))).unlink(missing_ok=True)

    def input_offer(self, job: str, endpoint: str, server_key: str) -> Offer:
        """How a worker gets the uploaded picture of a job."""
        data = (self._inputs / _hashed(input_key(job))).read_bytes()
        parcel = seal(pack({"input_reference": Leaf((len(data),), "uint8", memoryview(data))}))
        small = len(data) <= INLINE_BYTES
        route = InlineRoute(data) if small else ZmqRoute(endpoint, server_key)
        return Offer(input_key(job), parcel.tree, parcel.tensors, (route,))

    def path(self, name: str) -> Path:
        """Where a published file is."""
        return self._folder / name

    def _part(self, key: str) -> Path:
        return self._parts / _hashed(key)


def input_key(job: str) -> str:
    """The data server's key of a job's uploaded picture."""
    return f"input/{job}"


def _hashed(key: str) -> str:
    return hashlib.blake2b(key.encode(), digest_size=16).hexdigest()


def _fsync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
