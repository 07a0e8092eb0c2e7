"""Tensors over Mooncake's transfer engine: TCP, or RDMA where its wheel and the hosts have it.

The producer copies a parcel into a slot that the engine knows; the receiver reads that slot into one of its own. So one
process writes each slot, and a reader that comes too late harms nobody: the slot's header carries the epoch (a token drawn
for each offer, wiped when it is dropped) and the bytes are verified like those of any other route.

The engine listens on every interface and asks nobody who they are. It is therefore only started inside
``transport.trusted_networks``.
"""

import ipaddress
import secrets
import struct
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import xxhash

from stages.parcel import Parcel, layout
from stages.protocol import MooncakeRoute, TensorDesc
from stages.transport.deadline import Caller
from stages.transport.memory import SlotPool, address_of, copy
from stages.transport.transfers import TransferError

HEADER: Final = struct.Struct("<8s16sQQ")  # magic, token, bytes of tensors with alignment, hash of their checksums
HEADER_BYTES: Final = 64
MAGIC: Final = b"disagctl"
TOKEN_BYTES: Final = 16
POOL_BYTES: Final = 2 << 30
PROBE_S: Final = 30.0


class Engine(Protocol):
    """What we use of ``mooncake.engine.TransferEngine``."""

    def initialize(self, host: str, metadata: str, protocol: str, device: str, /) -> int:
        """0 when it listens."""

    def get_rpc_port(self) -> int:
        """Where; the port asked for is ignored."""

    def register_memory(self, address: int, nbytes: int, /) -> int:
        """0 when it may be read by others."""

    def unregister_memory(self, address: int, /) -> int:
        """0 when it no longer may."""

    def transfer_sync_read(self, session: str, address: int, source: int, nbytes: int, /) -> int:
        """Blocks, without the interpreter's lock. Anything but 0 is a failure."""


def trusts(networks: Iterable[str], host: str) -> bool:
    """Whether the address lies in one of the networks. A name does not: who answers to it is not known."""
    try:
        address = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    return any(address in ipaddress.ip_network(network) for network in networks)


def probe() -> str:
    """Why Mooncake cannot be used here; empty when it can.

    In a process of its own: a wheel made for another machine may take its process with it.
    """
    command = [sys.executable, "-c", "import mooncake.engine"]
    try:
        done = subprocess.run(command, capture_output=True, timeout=PROBE_S, check=False)
    except subprocess.TimeoutExpired:
        return "its import hangs"
    if done.returncode == 0:
        return ""
    return done.stderr.decode("utf-8", "replace").strip().rpartition("\n")[2][:200] or f"exit {done.returncode}"


def new_engine() -> Engine:
    """The real one. Raises ImportError."""
    from mooncake.engine import TransferEngine

    engine: Engine = TransferEngine()
    return engine


@dataclass(frozen=True, slots=True)
class Slot:
    """A parcel in registered memory."""

    memory: memoryview
    offsets: tuple[int, ...]
    lengths: tuple[int, ...]
    route: MooncakeRoute

    def view(self, index: int) -> memoryview | None:
        """Tensor ``index``, None when there is none."""
        if not 0 <= index < len(self.offsets):
            return None
        start = HEADER_BYTES + self.offsets[index]
        return self.memory[start : start + self.lengths[index]].toreadonly()

    def wipe(self) -> None:
        """From now on a reader sees that what was promised is gone."""
        self.memory[:HEADER_BYTES] = bytes(HEADER_BYTES)


class Mooncake:
    """One engine a process, shared by its outbox and fetchers. Thread-safe."""

    def __init__(
        self,
        host: str,
        networks: Iterable[str],
        engine: Engine | None = None,
        *,
        protocol: str = "tcp",
        pool_bytes: int = POOL_BYTES,
    ) -> None:
        """``host``: the address others reach us by; it must lie in ``networks``. Raises TransferError, ImportError."""
        self._networks = tuple(networks)
        if not self.trusts(host):
            msg = f"{host} is not in transport.trusted_networks"
            raise TransferError(msg)
        self._engine = engine or new_engine()
        rc = self._engine.initialize(host, "P2PHANDSHAKE", protocol, "")
        if rc != 0:
            msg = f"Mooncake does not start on {host} (code {rc})"
            raise TransferError(msg)
        self.session = f"{host}:{self._engine.get_rpc_port()}"
        self._pool = SlotPool(pool_bytes, on_new=self._register, on_drop=self._unregister)

    def trusts(self, host: str) -> bool:
        """Whether the address lies in a trusted network."""
        return trusts(self._networks, host)

    def store(self, parcel: Parcel) -> Slot | None:
        """Copy the parcel into a slot of ours; None when there is no room."""
        offsets, nbytes = layout(parcel.tensors)
        memory = self._pool.take(HEADER_BYTES + nbytes)
        if memory is None:
            return None
        for offset, buffer in zip(offsets, parcel.buffers, strict=True):
            copy(memory[HEADER_BYTES + offset : HEADER_BYTES + offset + buffer.nbytes], buffer)
        token = secrets.token_bytes(TOKEN_BYTES)
        HEADER.pack_into(memory, 0, MAGIC, token, nbytes, _digest(parcel.tensors))
        lengths = tuple(buffer.nbytes for buffer in parcel.buffers)
        return Slot(memory, tuple(offsets), lengths, MooncakeRoute(self.session, address_of(memory), token))

    def read(
        self, route: MooncakeRoute, tensors: Sequence[TensorDesc], caller: Caller, timeout_s: float
    ) -> tuple[memoryview, ...]:
        """Bring a slot here. Bytes are not verified. Raises TransferError."""
        if not self.trusts(route.session.rpartition(":")[0]):
            msg = f"{route.session} is not in transport.trusted_networks"
            raise TransferError(msg)
        offsets, nbytes = layout(tensors)
        memory = self._pool.take(HEADER_BYTES + nbytes)
        if memory is None:
            msg = f"no room for {nbytes} bytes in registered memory"
            raise TransferError(msg)
        target, length = address_of(memory), memory.nbytes

        def transfer(keep: memoryview = memory) -> int:  # the slot is not used again before this has returned
            return self._engine.transfer_sync_read(route.session, target, route.address, keep.nbytes)

        rc = caller.run(transfer, timeout_s)
        if rc != 0:
            msg = f"{route.session} does not deliver {length} bytes (code {rc})"
            raise TransferError(msg)
        magic, token, promised, digest = HEADER.unpack_from(memory)
        if (magic, token, promised, digest) != (MAGIC, route.token, nbytes, _digest(tensors)):
            msg = "the slot holds something else by now"
            raise TransferError(msg, "gone")
        body = memory[HEADER_BYTES:]
        return tuple(body[at : at + desc.nbytes] for at, desc in zip(offsets, tensors, strict=True))

    def _register(self, address: int, nbytes: int) -> None:
        rc = self._engine.register_memory(address, nbytes)
        if rc != 0:
            msg = f"Mooncake does not take {nbytes} bytes of memory (code {rc})"
            raise TransferError(msg)

    def _unregister(self, address: int, _nbytes: int) -> None:
        self._engine.unregister_memory(address)


def _digest(tensors: Sequence[TensorDesc]) -> int:
    return xxhash.xxh3_64_intdigest(b"".join(desc.checksum.to_bytes(8, "little") for desc in tensors))


def start(host: str, networks: Iterable[str], **options: Any) -> Mooncake | None:
    """An engine where one may be and can be; None otherwise."""
    try:
        return Mooncake(host, networks, **options)
    except (ImportError, TransferError):
        return None
