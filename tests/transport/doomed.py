"""A producer in a process of its own that is killed by its own hand at the n-th chunk. Prints its offer, in hex."""

import os
import signal
import sys
from pathlib import Path

import msgspec

from stages.transport.data_server import DataServer
from stages.transport.outbox import HeldOutbox
from tests.transport.kit import Keys, parcel_of


def main(peer: str, fatal_read: int, signal_number: int) -> None:
    keys = Keys.make()
    server = DataServer(public_key=keys.public, secret_key=keys.secret, peers=[peer])
    box = HeldOutbox("zmq", Path("unused"), "there", server.endpoint, keys.public, 1 << 30)
    reads = 0

    def read(key: str, index: int, offset: int, length: int) -> memoryview | None:
        nonlocal reads
        reads += 1
        if reads == fatal_read:
            os.kill(os.getpid(), signal_number)
        return box.read(key, index, offset, length)

    server.start(read)
    offer = box.offer("k", parcel_of(20 << 20))
    print(msgspec.msgpack.encode(offer).hex(), flush=True)
    sys.stdin.read()


main(sys.argv[1], int(sys.argv[2]), getattr(signal, sys.argv[3]))
