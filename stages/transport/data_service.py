"""What a data server answers, without sockets: one request in, one reply out, nothing raised."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

import msgspec

from stages.protocol import CHUNK_BYTES
from stages.transport.messages import DataError, Get, Put, read_header

MAX_KEY_CHARS: Final = 512

ReadFn = Callable[[str, int, int, int], memoryview | None]
"""(key, index, offset, length) → the bytes; None when they are not held. Their memory must not change afterwards."""

Reply = tuple[bytes, bytes | memoryview | None]
"""First frame and, where there is one, the second."""


class Sink(Protocol):
    """Takes artefacts. Called from the server's thread: be quick, hand fsync to another one."""

    def write(self, key: str, offset: int, total: int, checksum: int, data: memoryview) -> str:
        """Take a chunk. ``ok``: received; ``stored``: the whole artefact is durable; else an error code.

        Chunks come in order; offset 0 starts afresh. The last chunk is repeated until the answer is ``stored``, so
        ``ok`` may mean "still writing". ``data`` is only valid during the call.
        """


@dataclass(slots=True)
class ServerStats:
    """Counters since the start; written by the server's thread."""

    decoded: int = 0  # headers given to the decoder
    served: int = 0
    served_bytes: int = 0
    taken: int = 0  # chunks the sink accepted
    errors: int = 0  # DataError answers
    dropped: int = 0  # undecodable, oversized or nonsensical messages
    refused: int = 0  # messages of peers that are no longer on the list
    unsent: int = 0  # answers to peers that are gone or do not read
    faults: int = 0  # exceptions of the provider or the sink


class DataService:
    """Serves Get from ``read`` and Put into ``sink``; without a sink, Put is refused."""

    def __init__(self, read: ReadFn, sink: Sink | None, stats: ServerStats) -> None:
        self._read = read
        self._sink = sink
        self._stats = stats
        self._encoder = msgspec.msgpack.Encoder()

    def answer(self, head: bytes, body: memoryview | None) -> Reply | None:
        """The reply to one message from an authenticated peer, None when it deserves none."""
        self._stats.decoded += 1
        key = ""
        try:
            message = read_header(head)
            if message is None or isinstance(message, DataError) or len(message.key) > MAX_KEY_CHARS:
                self._stats.dropped += 1
                return None
            key = message.key
            return self._get(head, message) if isinstance(message, Get) else self._put(head, message, body)
        except Exception:  # noqa: BLE001 - supervision boundary: a broken provider or sink must not end the service
            self._stats.faults += 1
            return self._refuse(key, "failed")

    def _get(self, head: bytes, get: Get) -> Reply:
        if get.index < 0 or get.offset < 0 or not 0 < get.length <= CHUNK_BYTES:
            return self._refuse(get.key, "bad_request")
        view = self._read(get.key, get.index, get.offset, get.length)
        if view is None:
            return self._refuse(get.key, "gone")
        if view.nbytes != get.length:
            return self._refuse(get.key, "bad_request")
        self._stats.served += 1
        self._stats.served_bytes += view.nbytes
        return head, view  # the request's own header says what the bytes are

    def _put(self, head: bytes, put: Put, data: memoryview | None) -> Reply:
        if self._sink is None or data is None or put.offset < 0 or put.offset + data.nbytes > put.total:
            return self._refuse(put.key, "bad_request")
        answer = self._sink.write(put.key, put.offset, put.total, put.checksum, data)
        if answer not in {"ok", "stored"}:
            return self._refuse(put.key, answer)
        self._stats.taken += 1
        return head, answer.encode("ascii")

    def _refuse(self, key: str, code: str) -> Reply:
        self._stats.errors += 1
        return self._encoder.encode(DataError(key, code)), None
