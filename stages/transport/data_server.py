"""Serves held bytes to peers that pull them, and takes artefacts that workers push: one ROUTER socket, one thread.

Who is not on the list never gets as far as this file: CURVE and ZAP refuse the connection inside libzmq. Whoever was
taken off the list while connected is recognised by the User-Id that libzmq stamps on each message.
"""

import threading
from collections.abc import Iterable
from typing import Final

import zmq

from stages.transport.data_service import DataService, ReadFn, ServerStats, Sink
from stages.transport.messages import MAX_HEADER_BYTES
from stages.transport.sockets import receive_parts, server_options
from stages.transport.zap import AllowList

_BURST: Final = 64  # messages served before looking at the other sockets again
_STOP: Final = "inproc://stop"
_PEER_TROUBLE: Final = frozenset({zmq.EAGAIN, zmq.EHOSTUNREACH})  # it is gone, or reads too slowly: it will ask again
_OUR_END: Final = frozenset({zmq.ETERM, zmq.ENOTSOCK})


class DataServer:
    """Binds at once (``endpoint``), serves from ``start`` until ``stop``. Thread-safe."""

    def __init__(
        self,
        *,
        public_key: str,
        secret_key: str,
        peers: Iterable[str] = (),
        host: str = "127.0.0.1",
        port: int = 0,
        advertise: str | None = None,
    ) -> None:
        """``port`` 0: any. ``advertise``: the address peers reach ``host`` by. Raises OSError when it cannot bind."""
        self.stats = ServerStats()
        self.public_key = public_key
        self._thread: threading.Thread | None = None
        self._stop_lock = threading.Lock()
        # A context of its own: ZAP has one handler per context, and another socket's list is none of our business.
        self._ctx: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        address = f"tcp://{_bracketed(host)}:{port or '*'}"
        try:
            self._peers = AllowList(self._ctx, peers)
            self._inbox, self._bell = self._ctx.socket(zmq.PAIR), self._ctx.socket(zmq.PAIR)
            self._inbox.bind(_STOP)
            self._bell.connect(_STOP)
            self._router = self._ctx.socket(zmq.ROUTER)
            server_options(self._router, address, public_key, secret_key)
            self._router.bind(address)
        except zmq.ZMQError as err:
            self._ctx.destroy(linger=0)
            raise OSError(err.errno, f"cannot serve data on {address}: {err.strerror}") from err
        self.port = int(self._router.getsockopt_string(zmq.LAST_ENDPOINT).rpartition(":")[2])
        self.endpoint = f"tcp://{_bracketed(advertise or host)}:{self.port}"

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread is not None and self._thread.is_alive()

    @property
    def denied(self) -> int:
        """Connections refused for their key."""
        return self._peers.denied

    def set_peers(self, keys: Iterable[str]) -> None:
        """Exactly these CURVE keys (z85) may talk to us from now on."""
        self._peers.replace(keys)

    def start(self, read: ReadFn, sink: Sink | None = None) -> None:
        """Serve Get from ``read`` and Put into ``sink``; without one, Put is refused. Once per server."""
        service = DataService(read, sink, self.stats)
        self._thread = threading.Thread(target=self._run, args=(service,), name="data-server", daemon=True)
        self._thread.start()

    def stop(self, timeout_s: float = 5.0) -> bool:
        """End the thread and close everything. False when a provider or sink kept the thread past ``timeout_s``."""
        with self._stop_lock:
            if self._thread is not None and self._thread.is_alive():
                self._bell.send(b"")
                self._thread.join(timeout_s)
                if self._thread.is_alive():
                    return False
            self._ctx.destroy(linger=0)
            return True

    def _run(self, service: DataService) -> None:
        poller = zmq.Poller()
        for sock in (self._router, self._peers.socket, self._inbox):
            poller.register(sock, zmq.POLLIN)
        try:
            while True:
                ready = dict(poller.poll())
                if self._inbox in ready:
                    return
                while self._peers.socket in ready and self._peers.answer():
                    pass
                if self._router in ready:
                    self._burst(service)
        finally:
            self._router.close()  # before the handler that guards it
            self._peers.close()
            self._inbox.close()

    def _burst(self, service: DataService) -> None:
        for _ in range(_BURST):
            message = receive_parts(self._router)
            if message is None:
                return
            parts, surplus = message
            if surplus or len(parts) not in {2, 3}:
                self.stats.dropped += 1
                continue
            peer, head, *rest = parts
            if not self._peers.allows(_user_of(head)):
                self.stats.refused += 1
            elif len(head) > MAX_HEADER_BYTES:
                self.stats.dropped += 1
            else:
                reply = service.answer(head.bytes, rest[0].buffer if rest else None)
                if reply is not None:
                    self._send(peer.bytes, *reply)

    def _send(self, peer: bytes, head: bytes, body: bytes | memoryview | None) -> None:
        try:
            self._router.send(peer, zmq.SNDMORE | zmq.NOBLOCK)
            self._router.send(head, zmq.NOBLOCK if body is None else zmq.SNDMORE | zmq.NOBLOCK)
            if body is not None:
                self._router.send(body, zmq.NOBLOCK, copy=False)  # encrypted straight from where it is held
        except zmq.ZMQError as err:
            if err.errno in _OUR_END:
                raise
            if err.errno in _PEER_TROUBLE:
                self.stats.unsent += 1
            else:
                self.stats.faults += 1


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _user_of(frame: zmq.Frame) -> str:
    try:
        user = frame.get("User-Id")
    except zmq.ZMQError:
        return ""
    return user if isinstance(user, str) else ""
