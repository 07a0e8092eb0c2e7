"""A transfer in chunks as a state machine, without sockets: which request to send next, what to make of a reply."""

from collections import deque
from collections.abc import Sequence
from typing import Final, Protocol

import msgspec

from stages.protocol import CHUNK_BYTES, TensorDesc
from stages.transport.messages import DataError, Get, Put, read_header

WINDOW: Final = 4  # chunks in flight, at least
MAX_WINDOW: Final = 48  # at most: bounds what a peer can make us hold, and stays below HWM_MESSAGES

_encoder: Final = msgspec.msgpack.Encoder()


class TransferError(RuntimeError):
    """The peer did not deliver, or did not take, what it should. ``code``: its DataError's, or ``lost``."""

    def __init__(self, message: str, code: str = "lost") -> None:
        super().__init__(message)
        self.code = code


class Transfer(Protocol):
    """What the client needs to know of a transfer."""

    window: int  # chunks to keep in flight

    @property
    def nbytes(self) -> int:
        """How much it moves."""

    @property
    def done(self) -> bool:
        """Nothing is left to send or to wait for."""

    def next_request(self) -> tuple[bytes, memoryview | None] | None:
        """Header and body to send now; None while the window is full or all is sent."""

    def on_reply(self, head: bytes, body: memoryview | None) -> bool:
        """Take a reply. True when it moved the transfer on, False when it belongs to another one.

        Raises TransferError when the peer refuses or breaks the protocol.
        """

    def rewind(self) -> None:
        """The connection is lost: what was in flight must be sent again."""

    @property
    def idle_s(self) -> float:
        """How long to wait before asking again although nothing is in flight; 0 when that never happens."""


class Window:
    """How many chunks to keep in flight on one connection: twice what the path holds (bandwidth × round trip).

    Twice, so that the measured rate can grow with the window where there is room. The shortest answer is the round trip,
    the bytes of a whole transfer over its time the bandwidth.
    """

    def __init__(self) -> None:
        self.chunks = WINDOW
        self._round_trip_s = float("inf")

    def answered(self, seconds: float) -> None:
        """A chunk came so long after it was asked for."""
        self._round_trip_s = min(self._round_trip_s, seconds)

    def transferred(self, nbytes: int, seconds: float) -> None:
        """A transfer is complete."""
        if nbytes >= CHUNK_BYTES and seconds > 0:
            holds = nbytes / seconds * self._round_trip_s
            self.chunks = max(WINDOW, min(MAX_WINDOW, -int(-2 * holds // CHUNK_BYTES)))


class Download:
    """Reads all bytes of all tensors of one parcel into ``regions``, one for each tensor."""

    idle_s = 0.0

    def __init__(self, key: str, tensors: Sequence[TensorDesc], regions: Sequence[memoryview]) -> None:
        self._key = key
        self._regions = regions
        self.window = WINDOW
        self.nbytes = sum(desc.nbytes for desc in tensors)
        self._pending = deque(
            Get(key, index, offset, min(CHUNK_BYTES, desc.nbytes - offset))
            for index, desc in enumerate(tensors)
            for offset in range(0, desc.nbytes, CHUNK_BYTES)
        )
        self._flying: dict[tuple[int, int], Get] = {}

    @property
    def done(self) -> bool:
        """All chunks are here."""
        return not self._pending and not self._flying

    def next_request(self) -> tuple[bytes, memoryview | None] | None:
        """The next chunk to ask for."""
        if not self._pending or len(self._flying) >= self.window:
            return None
        get = self._pending.popleft()
        self._flying[get.index, get.offset] = get
        return _encoder.encode(get), None

    def on_reply(self, head: bytes, body: memoryview | None) -> bool:
        """Copy a chunk to its place."""
        reply = _decode(head, self._key)
        if not isinstance(reply, Get) or self._flying.get((reply.index, reply.offset)) != reply:
            return False  # an answer to somebody else's question, or to one that was asked twice
        if body is None or body.nbytes != reply.length:
            msg = f"{0 if body is None else body.nbytes} bytes in a chunk of {reply.length}"
            raise TransferError(msg)
        self._regions[reply.index][reply.offset : reply.offset + reply.length] = body
        del self._flying[reply.index, reply.offset]
        return True

    def rewind(self) -> None:
        """Ask again for what was in flight."""
        self._pending.extendleft(reversed(self._flying.values()))
        self._flying.clear()


class Upload:
    """Writes an artefact. The last chunk is repeated until the other side says ``stored``."""

    def __init__(self, key: str, data: memoryview, checksum: int) -> None:
        self._key = key
        self._data = data
        self._checksum = checksum
        self.window = WINDOW
        self.nbytes = data.nbytes
        self._offsets = range(0, max(data.nbytes, 1), CHUNK_BYTES)  # an empty file is one empty chunk
        self._next = 0
        self._flying: deque[int] = deque()
        self.done = False
        self.idle_s = 0.0

    def next_request(self) -> tuple[bytes, memoryview | None] | None:
        """The next chunk to send."""
        if self.done or len(self._flying) >= self.window:
            return None
        if self._next == len(self._offsets):
            if self._flying:
                return None
            self._next -= 1  # all received, not stored yet: ask by repeating the last chunk
        offset = self._offsets[self._next]
        self._next += 1
        self._flying.append(offset)
        self.idle_s = 0.0
        head = _encoder.encode(Put(self._key, offset, self._data.nbytes, self._checksum))
        return head, self._data[offset : offset + CHUNK_BYTES]

    def on_reply(self, head: bytes, body: memoryview | None) -> bool:
        """Note an acknowledgement."""
        reply = _decode(head, self._key)
        if not isinstance(reply, Put) or reply.offset not in self._flying or reply.checksum != self._checksum:
            return False
        self._flying.remove(reply.offset)
        if body is not None and body.tobytes() == b"stored":
            self.done = True
        elif self._next == len(self._offsets) and not self._flying:
            self.idle_s = 0.05
        return True

    def rewind(self) -> None:
        """Start afresh: the other side may have forgotten the beginning."""
        self._flying.clear()
        self._next = 0


def _decode(head: bytes, key: str) -> Get | Put | None:
    """The reply, None when it is unreadable or about another key. Raises TransferError when it refuses ours."""
    reply = read_header(head)
    if reply is None or reply.key != key:
        return None
    if isinstance(reply, DataError):
        msg = f"the peer answers {reply.code!r}"
        raise TransferError(msg, reply.code)
    return reply
