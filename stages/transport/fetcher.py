"""Brings a parcel here by the best of its routes, and the next best when that fails."""

import mmap
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final, get_args

from stages.checksum import Buffer
from stages.parcel import MAX_TENSORS, Parcel, ParcelError, layout, verify
from stages.protocol import InlineRoute, MooncakeRoute, Offer, RelayRoute, Route, ShmRoute, TensorDesc, Via, ZmqRoute
from stages.transport.base import FetchError, TransportMode, UploadError
from stages.transport.choice import Chooser
from stages.transport.data_client import STALL_S, DataClient
from stages.transport.deadline import Caller
from stages.transport.memory import SlotPool
from stages.transport.mooncake import Mooncake
from stages.transport.relay import RelayStore
from stages.transport.segments import SegmentError, map_segment
from stages.transport.transfers import Download, TransferError, Upload

MAX_FETCH_BYTES: Final = 8 << 30
POOL_BYTES: Final = 1 << 30
SLOWEST_BYTES_PER_S: Final = 1 << 20
_MODES: Final[dict[type[Route], str]] = {
    InlineRoute: "inline", ShmRoute: "shm", MooncakeRoute: "mooncake", ZmqRoute: "zmq", RelayRoute: "relay",
}  # fmt: skip
_DIRECT: Final = ("mooncake", "zmq")  # over the network: which is faster is measured


class Ways:
    """What the fetchers of one process share: memory slots, what they learnt of the network, engine and store."""

    def __init__(self, mooncake: Mooncake | None = None, relay: RelayStore | None = None) -> None:
        self.mooncake, self.relay = mooncake, relay
        self.chooser = Chooser()
        self.pool = SlotPool(POOL_BYTES)


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
        ways: Ways | None = None,
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
        self._ways = ways or Ways()
        self._caller = Caller("fetch-call")
        self._stall_s = stall_s
        self._why = ""
        self.last_route = ""  # what brought the last parcel
        self.last_failures: tuple[str, ...] = ()  # why the routes before it did not

    @property
    def via(self) -> Via | None:
        """What brought the last parcel, and why that; None for bytes that came in the message."""
        return Via(self.last_route, self._why) if self.last_route not in {"", "inline"} else None

    def fetch(self, offer: Offer, deadline_s: float) -> Parcel:
        """Bring the parcel here, verified. Blocks up to ``deadline_s`` seconds; raises FetchError."""
        if not offer.tensors and any(isinstance(route, InlineRoute) for route in offer.routes):
            self.last_route, self.last_failures = "inline", ()
            return Parcel(offer.tree, (), ())  # nothing to bring or to verify
        end = time.monotonic() + deadline_s
        self._check(offer)
        failures: list[str] = []
        codes: list[str] = []
        for name, route in self._usable(offer):
            begin = time.monotonic()
            try:
                buffers = self._bring(route, offer, end)
                verify(offer.tensors, buffers)
            except (ParcelError, SegmentError, TransferError) as err:
                failures.append(f"{name}: {err}")
                codes.append(getattr(err, "code", "gone" if isinstance(err, SegmentError) else "lost"))
                if name in _DIRECT:
                    self._ways.chooser.failed(_host_of(route), offer.nbytes, name)
            else:
                if name in _DIRECT:
                    self._ways.chooser.succeeded(_host_of(route), offer.nbytes, name, time.monotonic() - begin)
                self.last_route, self.last_failures = name, tuple(failures)
                if failures:
                    self._why = f"after {failures[-1]}"
                return Parcel(offer.tree, offer.tensors, buffers)
        self.last_route, self.last_failures = "", tuple(failures)
        why = "; ".join(failures) or f"no route for mode {self._mode} on this host among {len(offer.routes)} offered"
        msg = f"{offer.key}: {why}"
        raise FetchError(msg, gone=set(codes) == {"gone"}, unreachable=bool(codes) and codes[-1] == "unreachable")

    def upload(self, endpoint: str, server_key: str, key: str, data: Buffer, checksum: int, deadline_s: float) -> None:
        """Push an artefact; returns once the other side has stored it, raises UploadError. Repeating it is harmless."""
        end = time.monotonic() + deadline_s
        try:
            self._client.run(endpoint, server_key, Upload(key, memoryview(data).cast("B"), checksum), end)
        except TransferError as err:
            msg = f"{key}: {err}"
            raise UploadError(msg, "lost" if err.code == "unreachable" else err.code) from err

    def close(self) -> None:
        """Close connections. Parcels fetched before stay valid."""
        self._client.close()
        self._caller.close()

    def _check(self, offer: Offer) -> None:
        # The offer says how much memory we are to allocate: believe it only within reason.
        sizes = [desc.nbytes for desc in offer.tensors]
        if len(sizes) > MAX_TENSORS or any(size < 0 for size in sizes) or sum(sizes) > self._max_bytes:
            msg = f"{offer.key}: {len(sizes)} tensors of {sum(sizes)} bytes are over the limit of {self._max_bytes}"
            raise FetchError(msg)

    def _usable(self, offer: Offer) -> list[tuple[str, Route]]:
        """Routes the mode and this host permit, best first. What is inline is here already, whatever the mode."""
        usable: dict[str, Route] = {}
        for route in offer.routes:
            name = _MODES[type(route)]
            if name == "inline" or (self._permits(name) and self._can(route)):
                usable[name] = route
        direct: list[str] = [name for name in _DIRECT if name in usable]
        self._why = (
            "set in the spec" if self._mode != "auto" else "the same host" if "shm" in usable else "no other way"
        )
        if direct and "shm" not in usable and self._mode == "auto":
            direct, self._why = self._ways.chooser.order(_host_of(usable[direct[0]]), offer.nbytes, direct)
        order = ["inline", "shm", *direct, "relay"]
        return [(name, usable[name]) for name in order if name in usable]

    def _permits(self, name: str) -> bool:
        # A producer whose Mooncake does not import offers zmq instead.
        return self._mode in {"auto", name} or (self._mode, name) == ("mooncake", "zmq")

    def _can(self, route: Route) -> bool:
        if isinstance(route, MooncakeRoute):
            mooncake = self._ways.mooncake
            return mooncake is not None and mooncake.trusts(_host_of(route))
        if isinstance(route, RelayRoute):
            return self._ways.relay is not None
        return not isinstance(route, ShmRoute) or route.host == self._host

    def _bring(self, route: Route, offer: Offer, end: float) -> tuple[memoryview, ...]:
        if isinstance(route, InlineRoute):
            return _split(route.data, offer.tensors)
        if isinstance(route, ShmRoute):
            return map_segment(self._shm_dir, route.path, offer.tensors)
        left_s = end - time.monotonic()
        if isinstance(route, MooncakeRoute):
            if self._ways.mooncake is None:
                msg = "no engine here"
                raise TransferError(msg)
            # Progress cannot be seen from outside: a rate far below any network's must do.
            patience_s = self._stall_s + offer.nbytes / SLOWEST_BYTES_PER_S
            return self._ways.mooncake.read(route, offer.tensors, self._caller, min(left_s, patience_s))
        regions = self._allocate(offer.tensors)
        if isinstance(route, ZmqRoute):
            self._client.run(route.endpoint, route.server_key, Download(offer.key, offer.tensors, regions), end)
        elif self._ways.relay is not None:
            relay = self._ways.relay
            self._caller.run(lambda: relay.get(route.name, offer.tensors, regions), left_s)
        return regions

    def _allocate(self, tensors: Sequence[TensorDesc]) -> tuple[memoryview, ...]:
        """Room for the tensors, aligned: a slot of ours, or pages of their own when all slots are taken."""
        offsets, nbytes = layout(tensors)
        if nbytes == 0:
            return tuple(memoryview(bytearray()) for _ in tensors)
        region = self._ways.pool.take(nbytes)
        if region is None:
            try:
                region = memoryview(mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
            except OSError as err:
                msg = f"no memory for {nbytes} bytes: {err}"
                raise TransferError(msg) from err
        return tuple(region[at : at + desc.nbytes] for at, desc in zip(offsets, tensors, strict=True))


def _host_of(route: Route) -> str:
    """The address a direct route leads to."""
    where = route.endpoint if isinstance(route, ZmqRoute) else getattr(route, "session", "")
    return str(where).removeprefix("tcp://").rpartition(":")[0].strip("[]")


def _split(data: bytes, tensors: Sequence[TensorDesc]) -> tuple[memoryview, ...]:
    if len(data) != sum(desc.nbytes for desc in tensors):
        msg = f"{len(data)} bytes inline, {sum(desc.nbytes for desc in tensors)} were promised"
        raise ParcelError(msg)
    buffers, start = [], 0
    for desc in tensors:
        buffers.append(memoryview(bytearray(data[start : start + desc.nbytes])))  # a copy: writable and aligned
        start += desc.nbytes
    return tuple(buffers)
