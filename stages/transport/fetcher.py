"""Brings a parcel here by the best of its routes, and the next best when that fails."""

import mmap
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final, get_args

from stages.parcel import MAX_TENSORS, Buffer, Parcel, ParcelError, layout, verify
from stages.protocol import InlineRoute, Offer, Route, ShmRoute, TensorDesc, ZmqRoute
from stages.transport.base import FetchError, TransportMode, UploadError
from stages.transport.data_client import STALL_S, DataClient
from stages.transport.segments import SegmentError, map_segment
from stages.transport.transfers import Download, TransferError, Upload

MAX_FETCH_BYTES: Final = 8 << 30
_MODES: Final[dict[type[Route], str]] = {InlineRoute: "inline", ShmRoute: "shm", ZmqRoute: "zmq"}


class RouteFetcher:
    """Fetches parcels and uploads artefacts. Not for several threads at once; one fetcher a thread is fine.

    Buffers of a fetched parcel are private and writable, so that a tensor can be made on them without a copy.
    """

    def __init__(
        self,
        host: str,
        shm_dir: Path,
        public_key: str,
        secret_key: str,
        mode: TransportMode,
        *,
        stall_s: float = STALL_S,
        max_bytes: int = MAX_FETCH_BYTES,
    ) -> None:
        """``shm_dir``: the service's directory, parent of the workers'. ``max_bytes``: the largest parcel we accept."""
        if mode not in get_args(TransportMode):
            msg = f"unknown transport mode {mode!r}"
            raise ValueError(msg)
        self._host = host
        self._shm_dir = shm_dir.resolve()
        self._mode = mode
        self._max_bytes = max_bytes
        self._client = DataClient(public_key, secret_key, stall_s=stall_s)
        self.last_route = ""  # inline, shm or zmq: what brought the last parcel
        self.last_failures: tuple[str, ...] = ()  # why the routes before it did not

    def fetch(self, offer: Offer, deadline_s: float) -> Parcel:
        """Bring the parcel here, verified. Blocks up to ``deadline_s`` seconds; raises FetchError."""
        end = time.monotonic() + deadline_s
        self._check(offer)
        failures: list[str] = []
        for name, route in self._usable(offer.routes):
            try:
                buffers = self._bring(route, offer, end)
                verify(offer.tensors, buffers)
            except (ParcelError, SegmentError, TransferError) as err:
                failures.append(f"{name}: {err}")
            else:
                self.last_route, self.last_failures = name, tuple(failures)
                return Parcel(offer.tree, offer.tensors, buffers)
        self.last_route, self.last_failures = "", tuple(failures)
        why = "; ".join(failures) or f"no route for mode {self._mode} on this host among {len(offer.routes)} offered"
        msg = f"{offer.key}: {why}"
        raise FetchError(msg)

    def upload(self, endpoint: str, server_key: str, key: str, data: Buffer, checksum: int, deadline_s: float) -> None:
        """Push an artefact; returns once the other side has stored it, raises UploadError. Repeating it is harmless."""
        end = time.monotonic() + deadline_s
        try:
            self._client.run(endpoint, server_key, Upload(key, memoryview(data).cast("B"), checksum), end)
        except TransferError as err:
            msg = f"{key}: {err}"
            raise UploadError(msg, err.code) from err

    def close(self) -> None:
        """Close connections. Parcels fetched before stay valid."""
        self._client.close()

    def _check(self, offer: Offer) -> None:
        # The offer says how much memory we are to allocate: believe it only within reason.
        sizes = [desc.nbytes for desc in offer.tensors]
        if len(sizes) > MAX_TENSORS or any(size < 0 for size in sizes) or sum(sizes) > self._max_bytes:
            msg = f"{offer.key}: {len(sizes)} tensors of {sum(sizes)} bytes are over the limit of {self._max_bytes}"
            raise FetchError(msg)

    def _usable(self, routes: Sequence[Route]) -> list[tuple[str, Route]]:
        """Routes the mode and this host permit, best first. What is inline is here already, whatever the mode."""
        named = [(_MODES[type(route)], route) for route in routes]
        usable = [
            (name, route)
            for name, route in named
            if name == "inline" or (self._mode in {"auto", name} and getattr(route, "host", self._host) == self._host)
        ]
        order = list(_MODES.values())
        return sorted(usable, key=lambda item: order.index(item[0]))

    def _bring(self, route: Route, offer: Offer, end: float) -> tuple[memoryview, ...]:
        if isinstance(route, InlineRoute):
            return _split(route.data, offer.tensors)
        if isinstance(route, ShmRoute):
            return map_segment(self._shm_dir, route.path, offer.tensors)
        regions = _allocate(offer.tensors)
        self._client.run(route.endpoint, route.server_key, Download(offer.key, offer.tensors, regions), end)
        return regions


def _split(data: bytes, tensors: Sequence[TensorDesc]) -> tuple[memoryview, ...]:
    if len(data) != sum(desc.nbytes for desc in tensors):
        msg = f"{len(data)} bytes inline, {sum(desc.nbytes for desc in tensors)} were promised"
        raise ParcelError(msg)
    buffers, start = [], 0
    for desc in tensors:
        buffers.append(memoryview(bytearray(data[start : start + desc.nbytes])))  # a copy: writable and aligned
        start += desc.nbytes
    return tuple(buffers)


def _allocate(tensors: Sequence[TensorDesc]) -> tuple[memoryview, ...]:
    """Room for the tensors, aligned. Anonymous pages and not a bytearray: that one is zeroed before it is filled."""
    offsets, nbytes = layout(tensors)
    if nbytes == 0:
        return tuple(memoryview(bytearray()) for _ in tensors)
    try:
        region = memoryview(mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
    except OSError as err:
        msg = f"no memory for {nbytes} bytes: {err}"
        raise TransferError(msg) from err
    return tuple(region[at : at + desc.nbytes] for at, desc in zip(offsets, tensors, strict=True))
