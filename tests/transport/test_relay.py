"""Through a store: encrypted, bound to its name, verified, gone when it is released."""

from pathlib import Path

import pytest

from stages.protocol import RelayRoute, ZmqRoute
from stages.transport.base import FetchError, OutboxError
from stages.transport.fetcher import RouteFetcher, Ways
from stages.transport.outbox import HeldOutbox, Reach
from stages.transport.relay import RelayError, RelayStore, check_store, remove_prefix, stored_workers
from tests.transport.kit import SIZES, Site, parcel_of, same

KEY = bytes(range(32))


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"file://{tmp_path}/store/shop"


def outbox(site: Site, relay: RelayStore | None, mode="relay") -> HeldOutbox:
    server = site.server()
    box = HeldOutbox(mode, site.root / "w", "here", server.endpoint, site.keys.public, 1 << 30, relay=relay)
    site.boxes.append(box)
    server.start(box.read)
    return box


def fetcher(site: Site, url: str, key: bytes = KEY) -> RouteFetcher:
    return site.fetcher("auto", "elsewhere", ways=Ways(relay=RelayStore(url, "reader", key)))


def objects(url: str) -> list[Path]:
    return [path for path in Path(url.removeprefix("file://")).rglob("*") if path.is_file()]


@pytest.mark.parametrize("size", SIZES)
def test_round_trip(site: Site, url: str, size: int) -> None:
    parcel = parcel_of(size, 5)
    offer = outbox(site, RelayStore(url, "w", KEY)).offer("k", parcel)
    assert [type(route) for route in offer.routes] == [RelayRoute]
    assert same(fetcher(site, url).fetch(offer, 30), parcel)
    (path,) = objects(url)
    for buffer in parcel.buffers:
        assert not buffer.nbytes >= 16 or bytes(buffer[:16]) not in path.read_bytes()


def test_bytes_of_another_key_object_or_time_are_refused(site: Site, url: str) -> None:
    box, reader = outbox(site, RelayStore(url, "w", KEY)), fetcher(site, url)
    offer, other = box.offer("k", parcel_of(5 << 20)), box.offer("k2", parcel_of(5 << 20))
    with pytest.raises(FetchError, match="not what was written"):
        fetcher(site, url, bytes(32)).fetch(offer, 10)
    one, two = (Path(f"{url.removeprefix('file://')}/{o.routes[0].name}") for o in (offer, other))  # type: ignore[union-attr]
    good = one.read_bytes()
    for bad in (two.read_bytes(), good[:-1], good[: len(good) // 2], good[:100] + bytes([good[100] ^ 1]) + good[101:]):
        one.write_bytes(bad)
        with pytest.raises(FetchError, match="not what was written"):
            reader.fetch(offer, 10)
    one.unlink()
    with pytest.raises(FetchError) as caught:
        reader.fetch(offer, 10)
    assert caught.value.gone


def test_dropped_is_deleted_and_a_closed_worker_leaves_nothing(site: Site, url: str) -> None:
    store = RelayStore(url, "w", KEY)
    box = outbox(site, store)
    box.offer("k", parcel_of(1000))
    box.drop("k")
    box.offer("k2", parcel_of(1000))
    store.close()
    assert objects(url) == []
    dead = outbox(site, RelayStore(url, "dead", KEY))
    dead.offer("k", parcel_of(1000))
    assert stored_workers(url) == {"dead"}
    remove_prefix(url, "dead")
    remove_prefix(url, "dead")
    assert stored_workers(url) == set()
    assert stored_workers(f"{url}/nothing/here") == set()
    assert objects(url) == []
    for name in ("", "..", "a/b"):
        with pytest.raises(ValueError, match="names no"):
            remove_prefix(url, name)


def test_auto_uses_it_for_those_whom_nobody_else_reaches(site: Site, url: str) -> None:
    parcel = parcel_of(100_000)
    box = outbox(site, RelayStore(url, "w", KEY), "auto")
    box.set_reach(Reach(here=False, elsewhere=True))
    assert [type(route) for route in box.offer("k", parcel).routes] == [ZmqRoute]
    box.set_reach(Reach(here=False, elsewhere=True, relay=True))
    offer = box.offer("k", parcel)
    assert [type(route) for route in offer.routes] == [ZmqRoute, RelayRoute]
    site.servers[-1].stop()
    reader = fetcher(site, url)
    assert same(reader.fetch(offer, 10), parcel)
    assert reader.last_route == "relay"
    assert reader.via is not None
    assert "zmq: connection lost" in reader.via.why


def test_nobody_answers_is_told_apart(site: Site) -> None:
    offer = outbox(site, None, "zmq").offer("k", parcel_of(100_000))
    site.servers[-1].stop()
    with pytest.raises(FetchError) as caught:
        site.fetcher().fetch(offer, 5)
    assert caught.value.unreachable
    assert not caught.value.gone


def test_a_store_that_cannot_be_used(site: Site, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RelayError):
        check_store(f"file://{tmp_path}/file/below")
    with pytest.raises(RelayError, match="nonsense"):
        check_store("nonsense://x")
    check_store(f"file://{tmp_path}/new/folder")
    with pytest.raises(OutboxError, match=r"transport\.relay"):
        outbox(site, None).offer("k", parcel_of(10))
    box = outbox(site, RelayStore(f"file://{tmp_path}/file/below", "w", KEY))
    with pytest.raises(OutboxError, match="does not take"):
        box.offer("k", parcel_of(10))
