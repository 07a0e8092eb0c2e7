"""One CURVE DEALER to the head's hub, with numbered frames so that a loss is noticed.

Each frame is 4 bytes of sequence number and a msgpack list of messages. A number out of turn means that frames were lost
(a reconnect, a restarted head): both sides then restate everything (Hello). Sends never block: a full pipe loses the frame,
which the other side notices by its number.
"""

from collections.abc import Sequence
from typing import Any, Final, Generic, TypeVar

import msgspec
import zmq

from stages.protocol import MAX_BATCH, MAX_CONTROL_BYTES

SEQ_BYTES: Final = 4
SEQ_MASK: Final = 0xFFFFFFFF
HIGH_WATER: Final = 10_000
NOBLOCK: Final = int(zmq.NOBLOCK)  # as plain numbers: pyzmq's enums cost more than the calls that take them
EVENTS: Final = int(zmq.EVENTS)
POLLIN: Final = int(zmq.POLLIN)

In = TypeVar("In")
Out = TypeVar("Out")


class FrameError(ValueError):
    """A frame that cannot be one of ours."""


class Counter:
    """Numbers frames out and checks frames in."""

    __slots__ = ("_received", "_sent")

    def __init__(self) -> None:
        self._sent = 0
        self._received = 0

    def stamp(self) -> bytes:
        """The next outgoing number."""
        self._sent = (self._sent + 1) & SEQ_MASK
        return self._sent.to_bytes(SEQ_BYTES, "little")

    def check(self, frame: memoryview) -> bool:
        """Whether this incoming number follows the last one; the first of all is 1, so that losing that is noticed too."""
        seq = int.from_bytes(frame[:SEQ_BYTES], "little")
        follows = seq == (self._received + 1) & SEQ_MASK
        self._received = seq
        return follows


def readable(socket: "zmq.Socket[bytes]") -> bool:
    """Whether something waits to be received: a third of the price of trying in vain, which raises."""
    return bool(socket.get(EVENTS) & POLLIN)  # type: ignore[operator]  # an int for this option


def tune(socket: "zmq.Socket[bytes]", *, high_water: int = HIGH_WATER) -> None:
    """Bounds that every control socket has."""
    socket.setsockopt(zmq.LINGER, 0)
    socket.setsockopt(zmq.SNDHWM, high_water)
    socket.setsockopt(zmq.RCVHWM, high_water)
    socket.setsockopt(zmq.MAXMSGSIZE, MAX_CONTROL_BYTES)
    socket.setsockopt(zmq.RECONNECT_IVL, 100)
    socket.setsockopt(zmq.RECONNECT_IVL_MAX, 1000)
    socket.setsockopt(zmq.HEARTBEAT_IVL, 2000)
    socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, 6000)
    socket.setsockopt(zmq.HANDSHAKE_IVL, 5000)


def frames_of(messages: Sequence[Any], encoder: msgspec.msgpack.Encoder) -> list[bytes]:
    """Encode messages into as few frames as the limits allow, without sequence numbers."""
    out: list[bytes] = []
    for start in range(0, len(messages), MAX_BATCH):
        batch = messages[start : start + MAX_BATCH]
        data = encoder.encode(batch)
        if len(data) + SEQ_BYTES <= MAX_CONTROL_BYTES:
            out.append(data)
        elif len(batch) > 1:
            half = len(batch) // 2
            out += frames_of(batch[:half], encoder) + frames_of(batch[half:], encoder)
        else:
            msg = f"a single {type(batch[0]).__name__} of {len(data)} bytes is over the frame limit"
            raise FrameError(msg)
    return out


class Link(Generic[In, Out]):
    """The peer's end. ``incoming`` is the type of list that the head sends."""

    def __init__(
        self,
        context: "zmq.Context[Any]",
        endpoint: str,
        identity: str,
        keys: tuple[str, str],
        head_key: str,
        incoming: Any,
    ) -> None:
        self.socket: zmq.Socket[bytes] = context.socket(zmq.DEALER)
        tune(self.socket)
        self.socket.setsockopt(zmq.ROUTING_ID, identity.encode())
        self.socket.curve_publickey, self.socket.curve_secretkey = keys[0].encode(), keys[1].encode()
        self.socket.curve_serverkey = head_key.encode()
        self.socket.connect(endpoint)
        self._decoder = msgspec.msgpack.Decoder(incoming)
        self._encoder = msgspec.msgpack.Encoder()
        self._counter = Counter()

    def send(self, messages: Sequence[Out]) -> None:
        """Send without blocking."""
        for data in frames_of(messages, self._encoder):
            try:
                self.socket.send(self._counter.stamp() + data, NOBLOCK)
            except zmq.Again:
                continue  # the gap in the numbers tells the head

    def receive(self) -> tuple[list[In], bool]:
        """All messages that are here, and whether any frame before or among them was lost."""
        messages: list[In] = []
        lost = False
        while readable(self.socket):
            try:
                frame = memoryview(self.socket.recv(NOBLOCK))
            except zmq.Again:
                break
            lost |= not self._counter.check(frame)
            try:
                messages += self._decoder.decode(frame[SEQ_BYTES:])
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                lost = True
        return messages, lost

    def close(self) -> None:
        """Close at once."""
        self.socket.close(0)
