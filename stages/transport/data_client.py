"""Connections to data servers, kept while they work: one encrypted DEALER a peer, thrown away at the first trouble."""

import time
from collections import OrderedDict
from typing import Final

import zmq
from zmq.utils.monitor import recv_monitor_message

from stages.transport.sockets import client_options, receive_parts
from stages.transport.transfers import MAX_WINDOW, Transfer, TransferError, Window

MAX_PEERS: Final = 16
MAX_WINDOWS: Final = 256  # peers whose window is remembered
_FAREWELL_S: Final = 0.2  # longest wait for libzmq to say why there is no connection to send on
STALL_S: Final = 8.0  # a chunk takes a second at 10 Mbit/s; a frozen peer or a cut cable is noticed by then
# A peer that restarts, or has not heard yet that we are enrolled, is often there a moment later.
_RETRY_PAUSES_S: Final = (0.05, 0.1, 0.2)
_LOST: Final = (
    zmq.EVENT_DISCONNECTED
    | zmq.EVENT_CLOSED
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
)


class _PeerLost(TransferError):
    """The connection is refused or broken."""

    def __init__(self, message: str) -> None:
        super().__init__(message, "unreachable")


class _Connection:
    """A socket and the monitor that tells at once, and not by a timeout, when its peer goes."""

    def __init__(self, sock: zmq.Socket[bytes]) -> None:
        self.socket = sock
        self._monitor: zmq.Socket[bytes] = sock.get_monitor_socket(_LOST)
        self._poller = zmq.Poller()
        self._poller.register(sock, zmq.POLLIN)
        self._poller.register(self._monitor, zmq.POLLIN)

    def check(self, wait_s: float = 0.0) -> None:
        """Raise _PeerLost when the peer is known to be gone, or is so within ``wait_s``."""
        if self._monitor.poll(round(wait_s * 1000)):
            event = zmq.Event(recv_monitor_message(self._monitor)["event"])
            msg = f"connection lost ({(event.name or '').lower().replace('_', ' ')})"
            raise _PeerLost(msg)

    def send(self, head: bytes, body: memoryview | None) -> None:
        """Queue one message. The window keeps the queue far from full."""
        try:
            self.socket.send(head, zmq.NOBLOCK if body is None else zmq.SNDMORE | zmq.NOBLOCK)
            if body is not None:
                self.socket.send(body, zmq.NOBLOCK, copy=False)
        except zmq.Again as err:
            # The window is far below the high-water mark: there is no connection any more, and the monitor is about to
            # say why. On a busy machine it says so a little later than the socket.
            self.check(_FAREWELL_S)
            msg = "connection lost (the peer does not read)"
            raise _PeerLost(msg) from err
        except zmq.ZMQError as err:
            msg = f"connection lost ({err})"
            raise _PeerLost(msg) from err

    def wait(self, timeout_s: float) -> bool:
        """Whether a message is there within ``timeout_s``."""
        ready = dict(self._poller.poll(max(1, round(timeout_s * 1000))))
        if self.socket in ready:  # looked at first: what came before the peer went is good
            return True
        if ready:
            self.check()
        return False

    def close(self) -> None:
        self.socket.disable_monitor()
        self._monitor.close()
        self.socket.close()


class DataClient:
    """Runs transfers with data servers. For one thread at a time, like the sockets it owns."""

    def __init__(
        self, public_key: str, secret_key: str, *, max_peers: int = MAX_PEERS, stall_s: float = STALL_S
    ) -> None:
        """Keys are z85. At most ``max_peers`` connections stay open, the least recently used goes first."""
        self._keys = (public_key, secret_key)
        self._max_peers = max_peers
        self._stall_s = stall_s
        self._ctx: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._open: OrderedDict[tuple[str, str], _Connection] = OrderedDict()
        self._windows: OrderedDict[tuple[str, str], Window] = OrderedDict()

    @property
    def connections(self) -> int:
        """Connections open at present."""
        return len(self._open)

    def run(self, endpoint: str, server_key: str, transfer: Transfer, end: float) -> None:
        """Carry the transfer out until the monotonic time ``end``. Raises TransferError."""
        peer = (endpoint, server_key)
        window = self._window(peer)
        transfer.window = window.chunks
        for pause_s in (*_RETRY_PAUSES_S, None):
            try:
                self._pump(self._connection(peer), transfer, end, window)
            except _PeerLost:
                self._discard(peer)
                if pause_s is None or time.monotonic() + pause_s >= end:
                    raise
                transfer.rewind()
                time.sleep(pause_s)
            except BaseException:
                self._discard(peer)  # replies may still be on their way: the next transfer shall not meet them
                raise
            else:
                return

    def close(self) -> None:
        """Close all connections."""
        for peer in tuple(self._open):
            self._discard(peer)
        self._ctx.destroy(linger=0)

    def _window(self, peer: tuple[str, str]) -> Window:
        window = self._windows.setdefault(peer, Window())
        self._windows.move_to_end(peer)
        if len(self._windows) > MAX_WINDOWS:
            self._windows.popitem(last=False)
        return window

    def _pump(self, link: _Connection, transfer: Transfer, end: float, window: Window) -> None:
        begin = now = time.monotonic()
        answered = False
        stalled = begin + self._stall_s
        while not transfer.done:
            if transfer.idle_s:
                link.wait(transfer.idle_s)
            while (request := transfer.next_request()) is not None:
                link.send(*request)
            now = time.monotonic()
            if now >= end:
                msg = "the deadline passed"
                raise TransferError(msg)
            if now >= stalled:
                msg = f"no progress for {self._stall_s:g} s"
                raise TransferError(msg)
            if link.wait(min(end, stalled) - now) and self._receive(link, transfer):
                now = time.monotonic()
                stalled = now + self._stall_s
                if not answered:
                    answered = True
                    window.answered(now - begin)
        window.transferred(transfer.nbytes, now - begin)

    def _receive(self, link: _Connection, transfer: Transfer) -> bool:
        moved = False
        for _ in range(MAX_WINDOW):  # bounded: a peer that floods us must not keep us from looking at the clock
            message = receive_parts(link.socket)
            if message is None or transfer.done:
                break
            parts, _ = message
            body = parts[1].buffer if len(parts) > 1 else None
            moved = transfer.on_reply(parts[0].bytes, body) or moved
        return moved

    def _connection(self, peer: tuple[str, str]) -> _Connection:
        link = self._open.get(peer)
        if link is not None:
            try:
                link.check()
            except _PeerLost:  # it went while we were not looking; a new one may have taken its place
                self._discard(peer)
                link = None
        if link is None:
            while len(self._open) >= self._max_peers:
                self._discard(next(iter(self._open)))
            link = self._open[peer] = self._connect(*peer)
        self._open.move_to_end(peer)
        return link

    def _connect(self, endpoint: str, server_key: str) -> _Connection:
        link = _Connection(self._ctx.socket(zmq.DEALER))
        try:
            client_options(link.socket, endpoint, server_key, *self._keys)
            link.socket.connect(endpoint)
        except (zmq.ZMQError, ValueError) as err:  # an endpoint or key that is none
            link.close()
            msg = f"cannot connect to {endpoint}: {err}"
            raise TransferError(msg) from err
        return link

    def _discard(self, peer: tuple[str, str]) -> None:
        link = self._open.pop(peer, None)
        if link is not None:
            link.close()
