"""Time to hand tensors from one process to another, by transport. One JSON line each: python -m bench.handoff [MIB]

A hand-off is offer → the message that carries the offer → fetch and verify → an acknowledgement. That message travels
encrypted over loopback for all of them, as it does in a service; ``inline`` puts the tensor into it, which the product
does for small ones only (INLINE_BYTES), and is here to show why.
"""

import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import msgspec
import zmq

from stages.parcel import Leaf, Parcel, pack, seal
from stages.protocol import InlineRoute, Offer
from stages.transport.base import TransportMode
from stages.transport.data_server import DataServer
from stages.transport.fetcher import RouteFetcher
from stages.transport.outbox import HeldOutbox
from stages.transport.segments import remove_service

ROUNDS, WARM_UP = 60, 10
MODES: tuple[TransportMode, ...] = ("shm", "zmq", "inline")


def keys() -> tuple[str, str]:
    public, secret = zmq.curve_keypair()
    return public.decode(), secret.decode()


def consume(mode: TransportMode, shm_dir: str, control: str, server_key: str) -> None:
    """The other process: fetch what is offered, say when it is here."""
    public, secret = sys.stdin.readline().split()
    fetcher = RouteFetcher("here", Path(shm_dir), public, secret, mode)
    with zmq.Context() as ctx, ctx.socket(zmq.DEALER) as sock:
        sock.curve_publickey, sock.curve_secretkey = public.encode(), secret.encode()
        sock.curve_serverkey = server_key.encode()
        sock.connect(control)
        sock.send(b"")
        while frame := sock.recv():
            fetcher.fetch(msgspec.msgpack.decode(frame, type=Offer), 30)
            sock.send(b"")
    fetcher.close()


def median_ms(mode: TransportMode, parcel: Parcel, root: Path) -> float:
    """One producer, one consumer, one parcel after another."""
    (public, secret), (peer, peer_secret) = keys(), keys()
    server = DataServer(public_key=public, secret_key=secret, peers=[peer])
    box = HeldOutbox(mode, root / "w", "here", server.endpoint, public, 1 << 32)
    server.start(box.read)
    with zmq.Context() as ctx, ctx.socket(zmq.DEALER) as sock:
        sock.curve_server, sock.curve_publickey, sock.curve_secretkey = True, public.encode(), secret.encode()
        port = sock.bind_to_random_port("tcp://127.0.0.1")
        command = [sys.executable, "-m", "bench.handoff", mode, str(root), f"tcp://127.0.0.1:{port}", public]
        with subprocess.Popen(command, stdin=subprocess.PIPE, text=True) as child:
            assert child.stdin is not None
            child.stdin.write(f"{peer} {peer_secret}\n")
            child.stdin.flush()
            sock.recv()
            times = []
            for i in range(ROUNDS):
                start = time.perf_counter()
                if mode == "inline":
                    offer = Offer(str(i), parcel.tree, parcel.tensors, (InlineRoute(b"".join(parcel.buffers)),))
                else:
                    offer = box.offer(str(i), parcel)
                sock.send(msgspec.msgpack.encode(offer), copy=False)
                sock.recv()
                times.append(time.perf_counter() - start)
                box.drop(str(i))
            sock.send(b"")
    box.close()
    server.stop()
    return statistics.median(times[WARM_UP:]) * 1000


def main() -> None:
    mib = float(sys.argv[1]) if len(sys.argv) > 1 else 8.0
    data = memoryview(random.Random(0).randbytes(int(mib * (1 << 20))))
    parcel = seal(pack({"latents": Leaf((data.nbytes,), "uint8", data)}))
    shm = "/dev/shm" if Path("/dev/shm").is_dir() else None
    for mode in MODES:
        root = Path(tempfile.mkdtemp(prefix="disagctl-bench-", dir=shm)).resolve()
        try:
            value = round(median_ms(mode, parcel, root), 3)
        finally:
            remove_service(root)
        print(json.dumps({"figure": f"handoff_{mib:g}mib_{mode}", "value": value, "unit": "ms", "rounds": ROUNDS}))


if __name__ == "__main__":
    if len(sys.argv) == 5:
        mode = next(mode for mode in MODES if mode == sys.argv[1])
        consume(mode, *sys.argv[2:])
    else:
        main()
