"""xxh3-64 of a buffer; of a large one without holding the interpreter's lock.

python-xxhash holds the lock while it hashes, a millisecond or so for 8 MiB, and so keeps the thread that computes from
beginning its next task. Its extension exports the C function, and a call through ctypes lets go of the lock. Where it does
not, a large buffer is hashed in pieces, between which others get their turn.
"""

import ctypes
import sys
from collections.abc import Callable
from typing import Final

import xxhash

LARGE_BYTES: Final = 256 << 10
_NAMES: Final = ("XXH3_64bits_dispatch", "XXH3_64bits")  # the first picks the widest instructions that there are

Buffer = bytes | bytearray | memoryview


def checksum(buffer: Buffer) -> int:
    """xxh3-64 of its bytes (C-contiguous)."""
    size = buffer.nbytes if isinstance(buffer, memoryview) else len(buffer)
    return xxhash.xxh3_64_intdigest(buffer) if size < LARGE_BYTES else _large(memoryview(buffer).cast("B"))


def _in_pieces(view: memoryview) -> int:
    digest = xxhash.xxh3_64()
    for start in range(0, view.nbytes, LARGE_BYTES):
        digest.update(view[start : start + LARGE_BYTES])
    return digest.intdigest()


def _native() -> Callable[[memoryview], int] | None:
    """The exported function, if it is there and says the same."""
    try:
        library = ctypes.CDLL(sys.modules["xxhash._xxhash"].__file__ or "")
        function = next(found for name in _NAMES if (found := getattr(library, name, None)) is not None)
    except (KeyError, OSError, StopIteration):
        return None
    function.restype, function.argtypes = ctypes.c_uint64, (ctypes.c_void_p, ctypes.c_size_t)

    def large(view: memoryview) -> int:
        import numpy as np  # slow to import, and not needed before there is something large

        return int(function(np.frombuffer(view, np.uint8).__array_interface__["data"][0], view.nbytes))

    sample = b"disagctl" * 64
    held = ctypes.create_string_buffer(sample, len(sample))
    same = function(ctypes.addressof(held), len(sample)) == xxhash.xxh3_64_intdigest(sample)
    return large if same else None


_large: Final = _native() or _in_pieces
