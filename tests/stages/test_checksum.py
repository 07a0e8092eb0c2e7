"""Large buffers are hashed another way than small ones, to the same value."""

import random

import pytest
import xxhash

from stages import checksum
from stages.checksum import LARGE_BYTES


@pytest.mark.parametrize("size", [0, 1, LARGE_BYTES - 1, LARGE_BYTES, 3 * LARGE_BYTES + 7])
def test_every_way_says_the_same(size: int) -> None:
    data = random.Random(size).randbytes(size)
    wanted = xxhash.xxh3_64_intdigest(data)
    for buffer in (data, bytearray(data), memoryview(data)):
        assert checksum.checksum(buffer) == wanted
    assert checksum._in_pieces(memoryview(data)) == wanted
