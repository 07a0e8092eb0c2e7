"""Every route brings the bytes that were offered, or says why not."""

import random

import msgspec
import pytest

from stages.protocol import INLINE_BYTES, InlineRoute, Offer, ShmRoute, TensorDesc, ZmqRoute
from stages.transport.base import FetchError, OutboxError, OutboxFull
from stages.transport.faulty import Faults, FaultyFetcher
from tests.transport.kit import SIZES, Site, parcel_of, same


def kinds(offer: Offer) -> list[type]:
    return [type(route) for route in offer.routes]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("mode", ["shm", "zmq", "auto"])
def test_round_trip(site: Site, mode, size: int) -> None:
    parcel = parcel_of(size)
    offer = site.outbox(mode).offer("r/encode/1", parcel)
    offer = msgspec.msgpack.decode(msgspec.msgpack.encode(offer), type=Offer)  # as it crosses the wire
    fetcher = site.fetcher()
    got = fetcher.fetch(offer, 30)
    assert same(got, parcel)
    assert not any(buffer.readonly for buffer in got.buffers if buffer.nbytes)
    assert fetcher.last_route == ("inline" if mode == "auto" and size <= INLINE_BYTES else mode.replace("auto", "shm"))


def test_many_tensors_of_odd_sizes(site: Site) -> None:
    parcel = parcel_of(5, 0, 64, 65, 1, (2 << 20) + 3, 0, 7)
    offer = site.outbox("auto").offer("r/encode/1", parcel)
    assert kinds(offer) == [ShmRoute, ZmqRoute]
    for host, route in (("here", "shm"), ("elsewhere", "zmq")):
        fetcher = site.fetcher(host=host)
        assert same(fetcher.fetch(offer, 30), parcel)
        assert fetcher.last_route == route


def test_inline_up_to_its_limit_and_not_held(site: Site) -> None:
    box = site.outbox("inline")
    parcel = parcel_of(3, 500_000)
    offer = box.offer("k", parcel)
    assert kinds(offer) == [InlineRoute]
    assert box.held_bytes() == 0
    assert same(site.fetcher("zmq").fetch(offer, 1), parcel)
    with pytest.raises(OutboxError, match="transport mode auto"):
        box.offer("k", parcel_of(600_000))


def test_inline_bytes_of_the_wrong_length_or_content(site: Site) -> None:
    offer = site.outbox("auto").offer("k", parcel_of(100))
    (route,) = offer.routes
    assert isinstance(route, InlineRoute)
    data = route.data
    for bad in (data[:-1], data + b"x", bytes([data[0] ^ 1]) + data[1:]):
        with pytest.raises(FetchError, match=r"promised|checksum"):
            site.fetcher().fetch(msgspec.structs.replace(offer, routes=(InlineRoute(bad),)), 1)


def test_a_fetched_parcel_outlives_the_drop_and_is_private(site: Site) -> None:
    box = site.outbox("shm")
    parcel = parcel_of(1 << 20)
    offer = box.offer("k", parcel)
    one, two = site.fetcher().fetch(offer, 5), site.fetcher().fetch(offer, 5)
    one.buffers[0][0] ^= 0xFF
    box.drop("k")
    assert same(two, parcel)
    assert not same(one, parcel)
    with pytest.raises(FetchError, match="shm: "):
        site.fetcher().fetch(offer, 5)


def test_falls_through_to_the_next_route(site: Site) -> None:
    box = site.outbox("auto")
    parcel = parcel_of(100_000)
    offer = box.offer("k", parcel)
    shm, zmq_route = offer.routes
    assert isinstance(shm, ShmRoute)
    offer = msgspec.structs.replace(offer, routes=(msgspec.structs.replace(shm, path=shm.path + "x"), zmq_route))
    fetcher = site.fetcher()
    assert same(fetcher.fetch(offer, 5), parcel)
    assert fetcher.last_route == "zmq"
    assert fetcher.last_failures[0].startswith("shm: ")


def test_unknown_key_is_gone_and_the_reasons_of_all_routes_are_told(site: Site) -> None:
    box = site.outbox("auto")
    offer = box.offer("k", parcel_of(100_000))
    box.drop("k")
    with pytest.raises(FetchError, match=r"shm: .*; zmq: .*'gone'"):
        site.fetcher().fetch(offer, 5)
    with pytest.raises(FetchError, match="no route"):
        site.fetcher("inline").fetch(offer, 5)
    with pytest.raises(FetchError, match="no route"):
        site.fetcher("shm", host="elsewhere").fetch(offer, 5)


def test_changed_bytes_are_caught_over_zmq(site: Site) -> None:
    data = bytearray(random.Random(1).randbytes(3 << 20))
    parcel = parcel_of(0)
    desc = TensorDesc((len(data),), "uint8", len(data), 1234)
    bad = type(parcel)(parcel.tree, (desc,), (memoryview(data),))
    offer = site.outbox("zmq").offer("k", bad)
    with pytest.raises(FetchError, match="checksum"):
        site.fetcher().fetch(offer, 10)


def test_absurd_sizes_are_refused_before_memory_is_taken(site: Site) -> None:
    for nbytes in (-1, 1 << 60):
        offer = Offer("k", b"\x80", (TensorDesc((1,), "uint8", nbytes, 0),), (ZmqRoute("tcp://127.0.0.1:1", "x"),))
        with pytest.raises(FetchError, match="limit"):
            site.fetcher().fetch(offer, 1)


@pytest.mark.parametrize("endpoint", ["tcp://127.0.0.1:1", "nonsense", "tcp://:::"])
@pytest.mark.parametrize("key", ["", "x" * 40, "schlüssel"])
def test_an_impossible_peer_is_a_fetch_error(site: Site, endpoint: str, key: str) -> None:
    parcel = parcel_of(10)
    with pytest.raises(FetchError):
        site.fetcher().fetch(Offer("k", parcel.tree, parcel.tensors, (ZmqRoute(endpoint, key),)), 2)


def test_outbox_is_bounded(site: Site) -> None:
    box = site.outbox("zmq", limit=100_000)
    box.offer("a", parcel_of(60_000))
    with pytest.raises(OutboxFull):
        box.offer("b", parcel_of(60_000))
    box.offer("a", parcel_of(90_000))  # replaces, so it fits
    assert box.held_bytes() == 90_000
    box.drop("a")
    box.drop("a")
    assert box.held_bytes() == 0
    box.close()
    with pytest.raises(OutboxError, match="closed"):
        box.offer("c", parcel_of(1))


def test_unknown_modes_are_refused(site: Site) -> None:
    with pytest.raises(ValueError, match="carrier pigeon"):
        site.outbox("carrier pigeon")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="carrier pigeon"):
        site.fetcher("carrier pigeon")  # type: ignore[arg-type]


def test_faults_are_repeatable_and_never_give_wrong_bytes(site: Site) -> None:
    parcel = parcel_of(1000, 0, 1)
    offer = site.outbox("auto").offer("k", parcel)

    def play(seed: int) -> tuple[list[str], dict[str, int], list[float]]:
        slept: list[float] = []
        faults = Faults(delay=0.3, loss=0.2, flip=0.2, truncate=0.2, tear=0.2)
        fetcher = FaultyFetcher(site.fetcher(), faults, seed, slept.append)
        story = []
        for _ in range(200):
            try:
                assert same(fetcher.fetch(offer, 5), parcel)
                story.append("ok")
            except FetchError as err:
                story.append(str(err))
        return story, fetcher.injected, slept

    first = play(7)
    assert first == play(7)
    assert first != play(8)
    story, injected, slept = first
    assert all(injected.values())
    assert len(slept) == injected["delay"]
    assert 200 - story.count("ok") >= max(injected["loss"], injected["flip"], injected["truncate"])
    assert any("checksum" in line for line in story)
    assert any("promised" in line for line in story)
