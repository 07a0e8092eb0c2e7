"""Every transport between two processes at four sizes, and how ``auto`` compares to the best: python -m bench.transports

A hand-off is offer → the message that carries it → fetch and verify → acknowledgement, as in :mod:`bench.handoff`. All ways of
a size take turns, so that whatever else the machine does hits all of them; ``auto`` is compared with the way of the least
median within each round, and the median of these ratios counts. Every few rounds all outboxes are made anew: the same way has
been seen to take 1.4 times as long for as long as it used one segment, for which we have no reason but the pages that it got.
*near* is one host; *far* are two processes that take each other for strangers (no shared memory), over loopback.
"""

import argparse
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import msgspec
import zmq

from bench.figures import Figure, rounded
from bench.handoff import keys
from stages.parcel import Leaf, Parcel, pack
from stages.protocol import Offer
from stages.transport import mooncake
from stages.transport.base import TransportMode
from stages.transport.data_server import DataServer
from stages.transport.fetcher import RouteFetcher, Ways
from stages.transport.outbox import MAX_INLINE_BYTES, HeldOutbox, Reach
from stages.transport.segments import remove_service

SIZES = (1 << 10, 1 << 20, 16 << 20, 64 << 20)
ROUNDS = {1 << 10: 300, 1 << 20: 150, 16 << 20: 42, 64 << 20: 24}
BLOCKS = 6  # of these rounds, each with outboxes of its own
WARM_UP = 10  # of each way: connections, slots, and what auto has to learn first
WARM_AGAIN = 3  # in each block: a segment is quick from the third use on
TRUSTED = ("127.0.0.0/8",)
NEAR: tuple[TransportMode, ...] = ("inline", "shm", "zmq", "mooncake", "auto")
FAR: tuple[TransportMode, ...] = ("inline", "zmq", "mooncake", "auto")
BAR = 0.9

Way = tuple[str, TransportMode]


def consume(control: str, server_key: str, shm_dir: str) -> None:
    """The other process: fetch what is offered as the frame says, say when it is here."""
    public, secret = sys.stdin.readline().split()
    ways = Ways(mooncake.start("127.0.0.1", TRUSTED))
    made: dict[Way, RouteFetcher] = {}
    with zmq.Context() as ctx, ctx.socket(zmq.DEALER) as sock:
        sock.curve_publickey, sock.curve_secretkey = public.encode(), secret.encode()
        sock.curve_serverkey = server_key.encode()
        sock.connect(control)
        sock.send(b"")
        while frame := sock.recv():
            where, mode, offer = msgspec.msgpack.decode(frame, type=tuple[str, TransportMode, Offer])
            if (where, mode) not in made:
                made[where, mode] = RouteFetcher(where, Path(shm_dir), public, secret, mode, ways=ways)
            made[where, mode].fetch(offer, 60)
            sock.send(made[where, mode].last_route.encode())
    os._exit(0)  # an engine's threads are not ours to wait for


class Producer:
    """Our end: an outbox for each way, and the connection to the other process."""

    def __init__(self, root: Path, stack: ExitStack) -> None:
        (public, secret), (peer, peer_secret) = keys(), keys()
        self._root, self._keys, self._peer = root, (public, secret), peer
        self._engine = mooncake.start("127.0.0.1", TRUSTED)
        self._open = stack.enter_context(ExitStack())
        self.boxes: dict[Way, HeldOutbox] = {}
        self.renew()
        self.sock = stack.enter_context(stack.enter_context(zmq.Context()).socket(zmq.DEALER))
        self.sock.curve_server, self.sock.curve_publickey = True, public.encode()
        self.sock.curve_secretkey = secret.encode()
        port = self.sock.bind_to_random_port("tcp://127.0.0.1")
        command = [sys.executable, "-m", "bench.transports", "--consume", f"tcp://127.0.0.1:{port}", public, str(root)]
        child = stack.enter_context(subprocess.Popen(command, stdin=subprocess.PIPE, text=True))
        assert child.stdin is not None
        child.stdin.write(f"{peer} {peer_secret}\n")
        child.stdin.flush()
        self.sock.recv()
        stack.callback(self.sock.send, b"")

    def renew(self) -> None:
        """Other outboxes for all ways, with other memory."""
        self._open.close()
        public, secret = self._keys
        for where, mode in [("near", mode) for mode in NEAR] + [("far", mode) for mode in FAR]:
            if mode == "mooncake" and self._engine is None:
                continue
            server = DataServer(public_key=public, secret_key=secret, peers=[self._peer])
            directory = self._root / f"{where}-{mode}"
            box = HeldOutbox(mode, directory, "near", server.endpoint, public, 1 << 32, mooncake=self._engine)
            box.set_reach(Reach(here=where == "near", elsewhere=where == "far"))
            server.start(box.read)
            self._open.callback(server.stop)
            self._open.callback(box.close)
            self.boxes[where, mode] = box

    def hand_off(self, way: Way, key: str, parcel: Parcel) -> tuple[float, str]:
        """Seconds, and the transport that was used."""
        begin = time.perf_counter()
        offer = self.boxes[way].offer(key, parcel)
        self.sock.send(msgspec.msgpack.encode((*way, offer)), copy=False)
        used = self.sock.recv().decode()
        took = time.perf_counter() - begin
        self.boxes[way].drop(key)
        return took, used


@contextmanager
def shm_root() -> Iterator[Path]:
    """A folder in shared memory for as long as the run takes."""
    root = Path(tempfile.mkdtemp(prefix="disagctl-bench-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
    try:
        yield root.resolve()
    finally:
        remove_service(root.resolve())


def rounds(producer: Producer, size: int, scale: float) -> dict[Way, list[float]]:
    """Seconds of each way that can carry the size, round by round; all ways of a round in random order."""
    data = memoryview(random.Random(size).randbytes(size))
    parcel = pack({"latents": Leaf((size,), "uint8", data)})
    ways = [way for way in producer.boxes if way[1] != "inline" or size <= MAX_INLINE_BYTES]
    times: dict[Way, list[float]] = {way: [] for way in ways}
    each = max(1, int(ROUNDS[size] * scale) // BLOCKS)
    for block in range(BLOCKS):
        producer.renew()
        warm_up = WARM_AGAIN if block else WARM_UP
        for turn in range(warm_up + each):
            random.Random(block << 16 | turn).shuffle(ways)
            for way in ways:
                took, _ = producer.hand_off(way, f"{way}{block}.{turn}", parcel)
                if turn >= warm_up:
                    times[way].append(took)
    return times


def measure(scale: float = 1.0) -> list[Figure]:
    """A figure a way and size, and ``auto_vs_best``: its speed over the fastest one's, where it does worst."""
    figures: list[Figure] = []
    worst, at = float("inf"), ""
    with shm_root() as root, ExitStack() as stack:
        producer = Producer(root, stack)
        for size in SIZES:
            times = rounds(producer, size, scale)
            found = {way: statistics.median(taken) for way, taken in times.items()}
            label = f"{size >> 20}mib" if size >= 1 << 20 else f"{size >> 10}kib"
            for (where, mode), seconds in found.items():
                figures.append(Figure(f"transport_{label}_{where}_{mode}", rounded(seconds * 1e3), "ms", None, "lower"))
            for where in ("near", "far"):
                fixed = {mode: s for (w, mode), s in found.items() if w == where and mode != "auto"}
                best = min(fixed, key=lambda mode: fixed[mode])
                pairs = zip(times[where, best], times[where, "auto"], strict=True)
                share = statistics.median(fixed_s / auto_s for fixed_s, auto_s in pairs)
                figures.append(
                    Figure(f"auto_vs_best_{label}_{where}", rounded(share), "fraction", None, "higher", best)
                )
                if share < worst:
                    worst, at = share, f"{best}, {label}, {where}"
    figures.append(Figure("auto_vs_best", rounded(worst), "fraction", BAR, "higher", at, 1.0))
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.transports", description=__doc__)
    parser.add_argument("--scale", type=float, default=1.0, help="of the number of rounds")
    parser.add_argument("--consume", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.consume:
        consume(*args.consume)
        return
    for figure in measure(args.scale):
        print(figure.line(), flush=True)


if __name__ == "__main__":
    main()
