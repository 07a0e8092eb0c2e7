"""What a worker has made and still holds for whoever needs it next."""

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Final, get_args

from stages.parcel import Parcel, seal
from stages.protocol import INLINE_BYTES, MAX_CONTROL_BYTES, InlineRoute, Offer, RelayRoute, Route, ShmRoute, ZmqRoute
from stages.transport.base import OutboxError, OutboxFull, TransportMode
from stages.transport.mooncake import Mooncake, Slot
from stages.transport.relay import RelayError, RelayStore
from stages.transport.segments import Segment, SegmentError, SegmentStore, prepare_dir
from stages.transport.transfers import TransferError

MAX_INLINE_BYTES: Final = MAX_CONTROL_BYTES // 2  # the frame that carries it has other things to say, too


@dataclass(frozen=True, slots=True)
class Reach:
    """Where consumers may be: on this host, on others, behind a wall that only the store gets through."""

    here: bool = True
    elsewhere: bool = True
    relay: bool = False


@dataclass(frozen=True, slots=True)
class _Held:
    """A parcel in up to two places that others can read, or in this process's own memory."""

    nbytes: int
    buffers: tuple[memoryview, ...]  # empty when a segment or slot has them
    segment: Segment | None = None
    slot: Slot | None = None
    relay: RelayRoute | None = None

    def view(self, index: int) -> memoryview | None:
        if self.slot is not None:
            return self.slot.view(index)
        if self.segment is not None:
            return self.segment.view(index)
        return self.buffers[index] if 0 <= index < len(self.buffers) else None


class HeldOutbox:
    """Holds parcels in shared memory or in process memory, at most ``limit_bytes`` of them. Thread-safe.

    A parcel that goes inline is not held: its bytes are in the Offer, which the caller keeps and can repeat. Parcels
    held in process memory are not copied, so their buffers must not be written to after ``offer``.
    ``read`` is what a :class:`stages.transport.data_server.DataServer` serves from.
    """

    def __init__(
        self,
        mode: TransportMode,
        shm_dir: Path,
        host: str,
        data_server_endpoint: str,
        server_key: str,
        limit_bytes: int,
        *,
        mooncake: Mooncake | None = None,
        relay: RelayStore | None = None,
    ) -> None:
        """``shm_dir``: this worker's own directory below the service's; it is removed by ``close``.

        In mode ``mooncake`` without an engine (its wheel does not import here) parcels are offered over zmq alone.
        """
        if mode not in get_args(TransportMode):
            msg = f"unknown transport mode {mode!r}"
            raise ValueError(msg)
        self._mode = mode
        self._shm_dir = shm_dir
        self._host = host
        self._zmq_route = ZmqRoute(data_server_endpoint, server_key)
        self._limit = limit_bytes
        self._mooncake, self._relay = mooncake, relay
        self._reach = Reach()
        self._lock = threading.Lock()
        self._held: dict[str, _Held] = {}
        self._segments = SegmentStore()
        self._bytes = 0
        self._closed = False
        self._dir: Path | None = None
        self.shm_failures = 0  # parcels that went to process memory because shared memory would not take them
        self.shm_error = ""  # the last reason

    def set_reach(self, reach: Reach) -> None:
        """From the next offer on. Only mode ``auto`` looks at it: what nobody would use is not made."""
        self._reach = reach

    def offer(self, key: str, parcel: Parcel) -> Offer:
        """Keep the parcel and say how to fetch it. Raises OutboxFull, or OutboxError when the mode cannot carry it."""
        parcel, nbytes = seal(parcel), parcel.nbytes
        if self._mode == "inline" or (self._mode == "auto" and nbytes <= INLINE_BYTES):
            if nbytes > MAX_INLINE_BYTES:
                msg = f"{nbytes} bytes do not fit a message ({MAX_INLINE_BYTES}): use transport mode auto"
                raise OutboxError(msg)
            self.drop(key)  # a parcel offered before under this key is superseded
            return Offer(key, parcel.tree, parcel.tensors, (InlineRoute(b"".join(parcel.buffers)),))
        self._reserve(key, nbytes)
        try:
            held = self._store(key, parcel)
        except BaseException:
            self._release(nbytes)
            raise
        self._keep(key, held)
        return Offer(key, parcel.tree, parcel.tensors, self._routes(held))

    def read(self, key: str, index: int, offset: int, length: int) -> memoryview | None:
        """Bytes of a held tensor (fewer than asked for at its end), None when the key or tensor is not held."""
        with self._lock:  # also orders the lazy mapping against drop
            held = self._held.get(key)
            view = held.view(index) if held is not None else None
        return view[offset : offset + length] if view is not None else None

    def drop(self, key: str) -> None:
        """Free it. Unknown keys are ignored."""
        if key not in self._held:  # most outputs are small and inline: not worth the lock
            return
        with self._lock:
            self._forget(key)

    def held_bytes(self) -> int:
        """Bytes held at present, including those being written."""
        with self._lock:
            return self._bytes

    def close(self) -> None:
        """Drop everything and remove this worker's directory. Offers fail from here on."""
        with self._lock:
            self._closed = True
            for key in tuple(self._held):
                self._forget(key)
            directory, self._dir = self._dir, None
        self._segments.clear(close=True)
        if directory is not None:
            try:
                directory.rmdir()
            except OSError as err:  # not empty (an offer is being written and will clean up after itself), or gone
                self.shm_error = str(err)

    def _reserve(self, key: str, nbytes: int) -> None:
        # Counted before the bytes are written, so that two threads cannot both take the last room.
        with self._lock:
            self._forget(key)
            if self._closed:
                msg = "the outbox is closed"
                raise OutboxError(msg)
            if self._bytes + nbytes > self._limit:
                msg = f"{nbytes} bytes more than the {self._bytes} held would exceed the limit of {self._limit}"
                raise OutboxFull(msg)
            self._bytes += nbytes

    def _release(self, nbytes: int) -> None:
        with self._lock:
            self._bytes -= nbytes

    def _keep(self, key: str, held: _Held) -> None:
        with self._lock:
            self._forget(key)
            if not self._closed:
                self._held[key] = held
                return
            self._bytes -= held.nbytes
        self._free(held)
        msg = "the outbox was closed meanwhile"
        raise OutboxError(msg)

    def _forget(self, key: str) -> None:
        held = self._held.pop(key, None)
        if held is not None:
            self._bytes -= held.nbytes
            self._free(held)

    def _free(self, held: _Held) -> None:
        if held.segment is not None:
            self._segments.drop(held.segment)
        if held.slot is not None:
            held.slot.wipe()
        if held.relay is not None and self._relay is not None:
            self._relay.drop(held.relay.name)

    def _store(self, key: str, parcel: Parcel) -> _Held:
        reach, mode = self._reach, self._mode
        wanted = mode == "relay" or (mode == "auto" and reach.relay and self._relay is not None)
        relay = self._relayed(parcel) if wanted else None
        slot = self._slot(parcel) if mode == "mooncake" or (mode == "auto" and reach.elsewhere) else None
        segment = self._segment(key, parcel) if mode == "shm" or (mode == "auto" and reach.here) else None
        return _Held(parcel.nbytes, () if segment or slot else parcel.buffers, segment, slot, relay)

    def _segment(self, key: str, parcel: Parcel) -> Segment | None:
        try:
            return self._segments.write(self._directory(), key, parcel)
        except (OSError, SegmentError) as err:
            if self._mode == "shm":
                msg = f"no shared memory for {parcel.nbytes} bytes ({err}): enlarge /dev/shm or use mode auto or zmq"
                raise OutboxError(msg) from err
            with self._lock:
                self.shm_failures += 1
                self.shm_error = str(err)
            return None

    def _slot(self, parcel: Parcel) -> Slot | None:
        if self._mooncake is None or not parcel.nbytes:
            return None
        try:
            return self._mooncake.store(parcel)
        except TransferError:  # it goes over zmq
            return None

    def _relayed(self, parcel: Parcel) -> RelayRoute:
        if self._relay is None:
            msg = "there is no store that works here: see transport.relay"
            raise OutboxError(msg)
        try:
            return self._relay.put(parcel)
        except RelayError as err:
            msg = f"the relay's store does not take {parcel.nbytes} bytes: {err}"
            raise OutboxError(msg) from err

    def _directory(self) -> Path:
        with self._lock:
            if self._dir is None:
                self._dir = prepare_dir(self._shm_dir)
            return self._dir

    def _routes(self, held: _Held) -> tuple[Route, ...]:
        routes: list[Route] = []
        if held.segment is not None:
            routes.append(ShmRoute(self._host, str(held.segment.path)))
        if held.slot is not None:
            routes.append(held.slot.route)
        if self._mode in {"auto", "zmq", "mooncake"}:
            routes.append(self._zmq_route)
        if held.relay is not None:
            routes.append(held.relay)
        return tuple(routes)
