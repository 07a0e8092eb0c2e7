"""Who may talk to a socket: libzmq asks over ZAP (rfc.zeromq.org/spec/27) about every client that opens a connection.

pyzmq's ThreadAuthenticator would do, at the price of one more thread, a control socket and JSON over it. The question
is one message and the answer another, so the thread that serves the data answers it as well.
"""

from collections.abc import Iterable
from typing import Final

import zmq
from zmq.utils import z85

ZAP_ENDPOINT: Final = "inproc://zeromq.zap.01"
_REQUEST_PARTS: Final = 9  # routing id, "", version, request id, domain, address, identity, mechanism, client key


class AllowList:
    """The ZAP handler of one zmq context, with the CURVE keys (z85) it lets in.

    ``replace`` and ``allows`` may be called from any thread; ``answer`` and ``close`` belong to the one that polls
    ``socket``. Bind it before the sockets it guards, close it after them.
    """

    def __init__(self, ctx: zmq.Context[zmq.Socket[bytes]], keys: Iterable[str] = ()) -> None:
        self._keys = frozenset(keys)
        self.denied = 0
        self.socket = ctx.socket(zmq.ROUTER)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.bind(ZAP_ENDPOINT)

    def replace(self, keys: Iterable[str]) -> None:
        """From now on exactly these keys; connections that are open already are caught by ``allows``."""
        self._keys = frozenset(keys)

    def allows(self, key: str) -> bool:
        """Whether a message from this key may be read."""
        return key in self._keys

    def answer(self) -> bool:
        """Answer one waiting question. False when there is none."""
        try:
            parts = self.socket.recv_multipart(zmq.NOBLOCK)
        except zmq.Again:
            return False
        if len(parts) != _REQUEST_PARTS:  # only libzmq writes here; no answer means no entry
            self.denied += 1
            return True
        key = z85.encode(parts[8]).decode("ascii") if parts[7] == b"CURVE" and len(parts[8]) == 32 else ""
        ok = key in self._keys
        self.denied += not ok
        verdict = [b"200", b"OK", key.encode("ascii")] if ok else [b"400", b"unknown key", b""]
        self.socket.send_multipart([parts[0], b"", b"1.0", parts[3], *verdict, b""])
        return True

    def close(self) -> None:
        """Close the handler's socket."""
        self.socket.close()
