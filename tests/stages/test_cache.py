"""What an output is remembered by, and for how long."""

import msgspec

from stages.cache import OutputCache, key_of
from stages.parcel import Leaf, pack
from stages.protocol import ModelSource, Offer, TensorDesc

SOURCE = ModelSource("m", "org/model", "main")
PARAMS = {"prompt": "a red circle", "seed": 1, "steps": 4}


def key(source: ModelSource = SOURCE, stage: str = "encode", given: Offer | None = None, **params: object) -> bytes:
    return key_of(source, stage, {**PARAMS, **params}, given, frozenset({"seed"}))


def picture(checksum: int) -> Offer:
    return Offer("k", b"\x80", (TensorDesc((3,), "uint8", 3, checksum),), ())


def test_the_key_is_everything_that_matters_and_nothing_else() -> None:
    assert key(seed=2) == key()
    assert key_of(SOURCE, "encode", dict(reversed(PARAMS.items())), None, {"seed"}) == key()
    others = [
        key(prompt="a blue circle"),
        key(steps=5),
        key(negative_prompt=""),
        key(stage="denoise"),
        key(msgspec.structs.replace(SOURCE, revision="other")),
        key(msgspec.structs.replace(SOURCE, options=b'{"x": 1}')),
        key(given=picture(1)),
        key(given=picture(2)),
    ]
    assert len({key(), *others}) == len(others) + 1


def test_the_least_recently_used_go_first() -> None:
    cache = OutputCache(max_bytes=10_000, max_entries=3)
    parcels = [pack({"n": i}) for i in range(4)]
    for i in range(3):
        cache.put(bytes([i]), parcels[i])
    assert cache.get(b"\0") is parcels[0]
    cache.put(b"\3", parcels[3])
    assert [cache.get(bytes([i])) for i in range(4)] == [parcels[0], None, parcels[2], parcels[3]]
    cache.clear()
    assert cache.get(b"\0") is None


def test_bytes_are_bounded() -> None:
    cache = OutputCache(max_bytes=10_000)
    large = pack({"x": Leaf((2400,), "uint8", memoryview(bytes(2400)))})
    for i in range(6):
        cache.put(bytes([i]), large)
    assert sum(cache.get(bytes([i])) is not None for i in range(6)) == 4
    cache.put(b"huge", pack({"x": Leaf((5000,), "uint8", memoryview(bytes(5000)))}))
    assert cache.get(b"huge") is None
