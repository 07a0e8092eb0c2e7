"""How a node gets its key onto the head's list: once, with a one-time token, over its own CURVE socket.

The request is three raw frames (token, node id, public key) that the head compares and never decodes.
"""

from typing import Any, Final

import msgspec
import zmq
import zmq.utils.z85

from stages.boot import Bootstrap, Enrolled
from stages.link import tune

TRY_S: Final = 2.0
MAX_FRAME_BYTES: Final = 4096
KEY_CHARS: Final = 40


class EnrolError(RuntimeError):
    """The head did not take us."""


def is_public_key(text: bytes) -> bool:
    """Whether this is 32 bytes in z85."""
    if len(text) != KEY_CHARS:
        return False
    try:
        return len(zmq.utils.z85.decode(text)) == 32
    except (KeyError, ValueError):
        return False


def enrol(context: "zmq.Context[Any]", boot: Bootstrap, public: str, secret: str, tries: int) -> Enrolled:
    """Enrol; blocks up to ``tries`` × 2 s. Raises EnrolError."""
    for _ in range(tries):
        socket: zmq.Socket[bytes] = context.socket(zmq.DEALER)
        tune(socket, high_water=8)
        socket.setsockopt(zmq.MAXMSGSIZE, MAX_FRAME_BYTES)
        socket.curve_publickey, socket.curve_secretkey = public.encode(), secret.encode()
        socket.curve_serverkey = boot.head_key.encode()
        try:
            socket.connect(boot.enrol_endpoint)
            socket.send_multipart([boot.token.encode(), boot.node.encode(), public.encode()])
            if socket.poll(int(TRY_S * 1000)):
                return msgspec.msgpack.decode(socket.recv(), type=Enrolled)
        except (msgspec.DecodeError, UnicodeDecodeError) as err:
            msg = f"unreadable answer: {err}"
            raise EnrolError(msg) from err
        finally:
            socket.close(0)
    msg = f"the head at {boot.enrol_endpoint} did not accept node {boot.node} within {tries * TRY_S:g} s"
    raise EnrolError(msg)
