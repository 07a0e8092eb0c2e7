"""Options that every data socket gets: encryption, limits, liveness. Set before bind or connect; libzmq enforces them."""

from typing import Final

import zmq

from stages.protocol import MAX_DATA_BYTES

MAX_PARTS: Final = 4
HWM_MESSAGES: Final = 64  # a peer that keeps to the window of 4 never gets near it
HANDSHAKE_MS: Final = 5_000  # a peer that connects and says nothing is cut off after this long
HEARTBEAT_MS: Final = 5_000
HEARTBEAT_TIMEOUT_MS: Final = 15_000  # longer than one chunk takes on a 1 MB/s link shared by a few
CONNECT_MS: Final = 5_000
BACKLOG: Final = 128


def _harden(sock: zmq.Socket[bytes], endpoint: str) -> None:
    sock.setsockopt(zmq.LINGER, 0)
    sock.setsockopt(zmq.MAXMSGSIZE, MAX_DATA_BYTES)
    sock.setsockopt(zmq.SNDHWM, HWM_MESSAGES)
    sock.setsockopt(zmq.RCVHWM, HWM_MESSAGES)
    sock.setsockopt(zmq.HANDSHAKE_IVL, HANDSHAKE_MS)
    sock.setsockopt(zmq.HEARTBEAT_IVL, HEARTBEAT_MS)
    sock.setsockopt(zmq.HEARTBEAT_TIMEOUT, HEARTBEAT_TIMEOUT_MS)
    sock.setsockopt(zmq.HEARTBEAT_TTL, HEARTBEAT_TIMEOUT_MS)
    if "[" in endpoint:
        sock.setsockopt(zmq.IPV6, 1)


def server_options(sock: zmq.Socket[bytes], endpoint: str, public_key: str, secret_key: str) -> None:
    """Make ``sock`` (ROUTER) a CURVE server that asks ZAP about every client."""
    _harden(sock, endpoint)
    sock.setsockopt(zmq.BACKLOG, BACKLOG)
    # Without it a full pipe drops replies in silence; with it send() says EAGAIN and we count.
    sock.setsockopt(zmq.ROUTER_MANDATORY, 1)
    sock.setsockopt(zmq.CURVE_SERVER, 1)
    sock.setsockopt(zmq.CURVE_PUBLICKEY, public_key.encode("ascii"))
    sock.setsockopt(zmq.CURVE_SECRETKEY, secret_key.encode("ascii"))
    # libzmq's default is to let any key in while no ZAP handler is bound; enforcing turns that into a refusal.
    sock.setsockopt(zmq.ZAP_DOMAIN, b"disagctl")
    sock.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)


def client_options(sock: zmq.Socket[bytes], endpoint: str, server_key: str, public_key: str, secret_key: str) -> None:
    """Make ``sock`` (DEALER) a CURVE client of the server that owns ``server_key``."""
    _harden(sock, endpoint)
    sock.setsockopt(zmq.CONNECT_TIMEOUT, CONNECT_MS)
    # Never reconnect by itself: what was in flight is lost anyway, and the owner replaces a broken connection.
    sock.setsockopt(zmq.RECONNECT_IVL, -1)
    sock.setsockopt(zmq.CURVE_SERVERKEY, server_key.encode("ascii"))
    sock.setsockopt(zmq.CURVE_PUBLICKEY, public_key.encode("ascii"))
    sock.setsockopt(zmq.CURVE_SECRETKEY, secret_key.encode("ascii"))


def receive_parts(sock: zmq.Socket[bytes]) -> tuple[list[zmq.Frame], bool] | None:
    """The next message's first ``MAX_PARTS`` frames and whether there were more; None when none is waiting."""
    try:
        frame = sock.recv(zmq.NOBLOCK, copy=False)
    except zmq.Again:
        return None
    parts = [frame]
    surplus = False
    while frame.more:
        frame = sock.recv(zmq.NOBLOCK, copy=False)  # a message arrives whole: the rest of it is here already
        if len(parts) < MAX_PARTS:
            parts.append(frame)
        else:
            surplus = True  # let go at once, so that a message of a million parts is not a list of a million
    return parts, surplus
