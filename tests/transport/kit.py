"""Helpers of the transport tests."""

import random
from dataclasses import dataclass, field
from pathlib import Path

import zmq

from stages.parcel import Leaf, Parcel, pack, seal
from stages.transport.base import TransportMode
from stages.transport.data_server import DataServer
from stages.transport.fetcher import RouteFetcher
from stages.transport.outbox import HeldOutbox

SIZES = (0, 1, 63, 64, (1 << 20) + 1, 20 << 20)


@dataclass(frozen=True)
class Keys:
    public: str
    secret: str

    @classmethod
    def make(cls) -> "Keys":
        public, secret = zmq.curve_keypair()
        return cls(public.decode(), secret.decode())


def parcel_of(*sizes: int, seed: int = 0) -> Parcel:
    rng = random.Random(seed)
    leaves = [Leaf((size,), "uint8", memoryview(rng.randbytes(size))) for size in sizes]
    return seal(pack({"tensors": leaves, "steps": 4}))


def same(a: Parcel, b: Parcel) -> bool:
    return a.tree == b.tree and a.tensors == b.tensors and list(map(bytes, a.buffers)) == list(map(bytes, b.buffers))


@dataclass
class FakeSink:
    """Keeps artefacts in memory. ``slow`` answers ``ok`` to the last chunk this many times before ``stored``."""

    slow: int = 0
    answer: str = ""
    parts: dict[str, bytearray] = field(default_factory=dict)
    chunks: int = 0

    def write(self, key: str, offset: int, total: int, checksum: int, data: memoryview) -> str:
        self.chunks += 1
        if self.answer:
            return self.answer
        part = self.parts.setdefault(key, bytearray())
        if offset == 0:
            part.clear()
        if offset + len(data) != total or len(part) != total:
            if offset != len(part):
                return "bad_request"
            part += data
        if len(part) < total or self.slow > 0:
            self.slow -= len(part) == total
            return "ok"
        return "stored"


class Site:
    """One service directory, one server; outboxes and fetchers made on demand and closed at the end."""

    def __init__(self, root: Path, client: Keys) -> None:
        self.root = root
        self.client = client
        self.keys = Keys.make()
        self.boxes: list[HeldOutbox] = []
        self.fetchers: list[RouteFetcher] = []
        self.servers: list[DataServer] = []

    def server(self, **options) -> DataServer:
        options.setdefault("peers", [self.client.public])
        server = DataServer(public_key=self.keys.public, secret_key=self.keys.secret, **options)
        self.servers.append(server)
        return server

    def outbox(self, mode: TransportMode, limit: int = 1 << 30, worker: str = "w0") -> HeldOutbox:
        """An outbox with a running server."""
        server = self.server()
        box = HeldOutbox(mode, self.root / worker, "here", server.endpoint, self.keys.public, limit)
        self.boxes.append(box)
        server.start(box.read)
        return box

    def fetcher(self, mode: TransportMode = "auto", host: str = "here", keys: Keys | None = None, **options):
        keys = keys or self.client
        options.setdefault("stall_s", 0.5)
        fetcher = RouteFetcher(host, self.root, keys.public, keys.secret, mode, **options)
        self.fetchers.append(fetcher)
        return fetcher

    def close(self) -> None:
        for fetcher in self.fetchers:
            fetcher.close()
        for box in self.boxes:
            box.close()
        for server in self.servers:
            assert server.stop()
