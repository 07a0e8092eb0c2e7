"""Tensors by way of an object store (a folder, s3, gs …), for workers that cannot reach each other.

The store sees only ciphertext: AES-256-GCM in chunks, each bound to the object's name and its place, under a key that the
head hands out over CURVE. Objects are named by chance below ``<store>/<service>/<worker>/``, so that what a dead worker left,
and what a service left, is one prefix to remove.
"""

import secrets
import threading
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import Any, Final

from stages.parcel import Parcel, layout
from stages.protocol import RelayRoute, TensorDesc
from stages.transport.transfers import TransferError

CHUNK_BYTES: Final = 4 << 20
NONCE_BYTES: Final = 8  # random, one an object; four more count its chunks
TAG_BYTES: Final = 16
KEY_BYTES: Final = 32


class RelayError(RuntimeError):
    """The store cannot be used. The message says what it answered."""


def open_store(url: str) -> tuple[Any, str]:
    """(file system, path in it) of a store's URL. Raises RelayError saying what to install."""
    try:
        import fsspec

        found, path = fsspec.core.url_to_fs(url)
    except ImportError as err:
        msg = f"{url}: {err}; pip install 'disagctl[relay]', and s3fs for s3:// or gcsfs for gs://"
        raise RelayError(msg) from err
    except ValueError as err:
        msg = f"{url}: {err}"
        raise RelayError(msg) from err
    return found, path.rstrip("/")


def cipher(key: bytes) -> Any:
    """AES-256-GCM. Raises RelayError where it is not installed."""
    try:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    except ImportError as err:
        msg = f"{err}; pip install 'disagctl[relay]'"
        raise RelayError(msg) from err
    return AESGCM(key)


def check_store(url: str) -> None:
    """Write, read and delete a small object. Raises RelayError."""
    cipher(bytes(KEY_BYTES))
    store, path = open_store(url)
    probe, word = f"{path}/.disagctl-{secrets.token_hex(8)}", secrets.token_bytes(16)

    def tried() -> None:
        store.makedirs(path, exist_ok=True)
        store.pipe_file(probe, word)
        found = store.cat_file(probe)
        store.rm_file(probe)
        if found != word:
            msg = "what was written is not what is read"
            raise RelayError(msg)

    _guarded(tried)


def remove_prefix(url: str, *below: str) -> None:
    """Remove a service's objects, or with a worker's name that worker's. Nothing there is fine. Raises RelayError."""
    if any(part in {"", ".", ".."} or "/" in part for part in below):
        msg = f"{below} names no service or worker"
        raise ValueError(msg)
    store, path = open_store(url)
    _guarded(lambda: _remove(store, "/".join((path, *below))))


def stored_workers(url: str) -> set[str]:
    """Workers with objects below a service's prefix. Raises RelayError."""
    store, path = open_store(url)
    found: set[str] = set()

    def look() -> None:
        try:
            found.update(str(name).rstrip("/").rpartition("/")[2] for name in store.ls(path, detail=False))
        except FileNotFoundError:
            return

    _guarded(look)
    return found


class RelayStore:
    """One worker's way to the store. Thread-safe; deletes in the background."""

    def __init__(self, url: str, worker: str, key: bytes) -> None:
        """``url``: the service's prefix. Raises RelayError."""
        self._fs, self._path = open_store(url)
        self._cipher = cipher(key)
        self._worker = worker
        self._doomed: SimpleQueue[str | None] = SimpleQueue()
        self._remover: threading.Thread | None = None
        self.error = ""  # why the last deletion failed; what is left goes with the worker's prefix

    def put(self, parcel: Parcel) -> RelayRoute:
        """Write the parcel as a new object. Raises RelayError."""
        name = f"{self._worker}/{secrets.token_hex(16)}"
        nonce = secrets.token_bytes(NONCE_BYTES)
        data = _flat(parcel)

        def write() -> None:
            path = f"{self._path}/{name}"
            self._fs.makedirs(path.rpartition("/")[0], exist_ok=True)
            with self._fs.open(path, "wb") as file:
                file.write(nonce)
                for index, start in enumerate(range(0, data.nbytes, CHUNK_BYTES)):
                    chunk = data[start : start + CHUNK_BYTES]
                    file.write(self._cipher.encrypt(_nonce(nonce, index), chunk, _label(name, index, data.nbytes)))

        _guarded(write)
        return RelayRoute(name)

    def get(self, name: str, tensors: Sequence[TensorDesc], regions: Sequence[memoryview]) -> None:
        """Read an object into ``regions``, which lie as :func:`stages.parcel.layout` says. Raises TransferError."""
        if ".." in name.split("/") or name.startswith("/"):
            msg = f"{name!r} is no object of ours"
            raise TransferError(msg)
        _, nbytes = layout(tensors)
        flat = bytearray(nbytes)

        def read() -> None:
            with self._fs.open(f"{self._path}/{name}", "rb") as file:
                nonce = file.read(NONCE_BYTES)
                for index, start in enumerate(range(0, nbytes, CHUNK_BYTES)):
                    length = min(CHUNK_BYTES, nbytes - start)
                    sealed = file.read(length + TAG_BYTES)
                    flat[start : start + length] = self._open(name, nonce, index, nbytes, sealed)

        try:
            _guarded(read)
        except RelayError as err:
            gone = isinstance(err.__cause__, FileNotFoundError)
            raise TransferError(str(err), "gone" if gone else "lost") from err
        offsets, _ = layout(tensors)
        for offset, region in zip(offsets, regions, strict=True):
            region[:] = memoryview(flat)[offset : offset + region.nbytes]

    def drop(self, name: str) -> None:
        """Delete the object, soon."""
        if self._remover is None:
            self._remover = threading.Thread(target=self._remove_forever, name="relay", daemon=True)
            self._remover.start()
        self._doomed.put(name)

    def close(self, timeout_s: float = 5.0) -> None:
        """Delete everything of this worker."""
        if self._remover is not None:
            self._doomed.put(None)
            self._remover.join(timeout_s)
        try:
            _guarded(lambda: _remove(self._fs, f"{self._path}/{self._worker}"))
        except RelayError as err:
            self.error = str(err)

    def _remove_forever(self) -> None:
        while (name := self._doomed.get()) is not None:
            path = f"{self._path}/{name}"
            try:
                _guarded(lambda path=path: self._fs.rm_file(path))  # type: ignore[misc]
            except RelayError as err:
                self.error = str(err)

    def _open(self, name: str, nonce: bytes, index: int, nbytes: int, sealed: bytes) -> bytes:
        from cryptography.exceptions import InvalidTag

        try:
            plain: bytes = self._cipher.decrypt(_nonce(nonce, index), sealed, _label(name, index, nbytes))
        except (InvalidTag, ValueError) as err:
            msg = f"{name}: chunk {index} is not what was written"
            raise RelayError(msg) from err
        return plain


def _flat(parcel: Parcel) -> memoryview:
    offsets, nbytes = layout(parcel.tensors)
    flat = bytearray(nbytes)
    for offset, buffer in zip(offsets, parcel.buffers, strict=True):
        flat[offset : offset + buffer.nbytes] = buffer
    return memoryview(flat)


def _nonce(prefix: bytes, index: int) -> bytes:
    return prefix + index.to_bytes(4, "big")


def _label(name: str, index: int, nbytes: int) -> bytes:
    return f"{name}/{index}/{nbytes}".encode()


def _remove(store: Any, path: str) -> None:
    try:
        store.rm(path, recursive=True)
    except FileNotFoundError:
        return


def _guarded(call: Callable[[], None]) -> None:
    """Every store has exceptions of its own."""
    try:
        call()
    except RelayError:
        raise
    except Exception as err:  # boundary: whatever a store's library raises
        msg = f"{type(err).__name__}: {err}"
        raise RelayError(msg) from err
