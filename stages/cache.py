"""Outputs of a stage remembered by what they were made from, so that a repeated prompt need not be encoded again.

Each worker remembers its own: a cached output is held, offered and released under the new task's key and epoch like one that
was computed, so nothing changes for who tracks it, and what dies with its worker is computed again elsewhere.
"""

from collections import OrderedDict
from collections.abc import Collection
from typing import Any, Final

import msgspec
import xxhash

from stages.parcel import Parcel
from stages.protocol import ModelSource, Offer

MAX_BYTES: Final = 512 << 20
MAX_ENTRIES: Final = 1024

_encoder: Final = msgspec.json.Encoder(order="sorted")


def key_of(
    source: ModelSource, stage: str, params: dict[str, Any], given: Offer | None, ignored: Collection[str]
) -> bytes:
    """Hash of everything that the output depends on: model, settings but the ``ignored`` ones, bytes of the input."""
    settings = {name: value for name, value in params.items() if name not in ignored}
    tensors = () if given is None else given.tensors
    tree = b"" if given is None else given.tree
    return xxhash.xxh3_128_digest(_encoder.encode((source, stage, settings, tensors, tree)))


class OutputCache:
    """The least recently used go first. For one thread."""

    def __init__(self, max_bytes: int = MAX_BYTES, max_entries: int = MAX_ENTRIES) -> None:
        self._max_bytes, self._max_entries = max_bytes, max_entries
        self._entries: OrderedDict[bytes, Parcel] = OrderedDict()
        self._bytes = 0

    def get(self, key: bytes) -> Parcel | None:
        """The output, None when it is not remembered."""
        found = self._entries.get(key)
        if found is not None:
            self._entries.move_to_end(key)
        return found

    def put(self, key: bytes, parcel: Parcel) -> None:
        """Remember an output; its bytes must not change from here on. One that is too large is not remembered."""
        size = _size(parcel)
        if size > self._max_bytes // 4 or key in self._entries:
            return
        self._entries[key] = parcel
        self._bytes += size
        while self._bytes > self._max_bytes or len(self._entries) > self._max_entries:
            self._bytes -= _size(self._entries.popitem(last=False)[1])

    def clear(self) -> None:
        """Forget everything."""
        self._entries.clear()
        self._bytes = 0


def _size(parcel: Parcel) -> int:
    return parcel.nbytes + len(parcel.tree)
