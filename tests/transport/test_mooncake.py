"""Mooncake's traps: a frozen peer, a slot that holds something else by now, a peer that started again, no trust, no wheel."""

import ctypes
import gc
import threading
from dataclasses import dataclass, field

import pytest

from stages.protocol import MooncakeRoute, ShmRoute, ZmqRoute
from stages.transport import mooncake
from stages.transport.base import FetchError
from stages.transport.deadline import MAX_STUCK, Caller
from stages.transport.fetcher import RouteFetcher, Ways
from stages.transport.mooncake import Mooncake, trusts
from stages.transport.outbox import HeldOutbox, Reach
from stages.transport.transfers import TransferError
from tests.transport.kit import SIZES, Site, parcel_of, same

TRUSTED = ("127.0.0.0/8",)


@dataclass
class FakeEngine:
    """All engines of a test share one memory: ours."""

    port: int = 1
    rc: int = 0
    frozen: threading.Event | None = None
    registered: dict[int, int] = field(default_factory=dict)
    reads: list[str] = field(default_factory=list)

    def initialize(self, host: str, metadata: str, protocol: str, device: str, /) -> int:
        return self.rc

    def get_rpc_port(self) -> int:
        return self.port

    def register_memory(self, address: int, nbytes: int, /) -> int:
        self.registered[address] = nbytes
        return 0

    def unregister_memory(self, address: int, /) -> int:
        del self.registered[address]
        return 0

    def transfer_sync_read(self, session: str, address: int, source: int, nbytes: int, /) -> int:
        self.reads.append(session)
        if self.frozen is not None:
            self.frozen.wait()
        if self.rc == 0:
            ctypes.memmove(address, source, nbytes)
        return self.rc


def outbox(site: Site, engine: Mooncake | None, mode="mooncake") -> HeldOutbox:
    server = site.server()
    box = HeldOutbox(mode, site.root / "m", "here", server.endpoint, site.keys.public, 1 << 30, mooncake=engine)
    site.boxes.append(box)
    server.start(box.read)
    return box


def fetcher(site: Site, engine: Mooncake | None, mode="mooncake", host: str = "here") -> RouteFetcher:
    return site.fetcher(mode, host, ways=Ways(engine))


@pytest.mark.parametrize("size", SIZES)
def test_round_trip(site: Site, size: int) -> None:
    parcel = parcel_of(size, 3)
    offer = outbox(site, Mooncake("127.0.0.1", TRUSTED, FakeEngine(7))).offer("k", parcel)
    route = offer.routes[0]
    assert isinstance(route, MooncakeRoute)
    assert route.session == "127.0.0.1:7"
    reader = fetcher(site, Mooncake("127.0.0.1", TRUSTED, FakeEngine()))
    assert same(reader.fetch(offer, 5), parcel)
    assert reader.last_route == "mooncake"


def test_the_epoch_fences_a_slot_that_was_dropped_or_is_used_again(site: Site) -> None:
    engine = Mooncake("127.0.0.1", TRUSTED, FakeEngine())
    box, reader = outbox(site, engine), fetcher(site, engine)
    old = box.offer("k", parcel_of(100_000))
    box.drop("k")
    with pytest.raises(FetchError, match=r"mooncake: the slot holds something else by now; zmq: .*'gone'") as caught:
        reader.fetch(old, 5)
    assert caught.value.gone
    gc.collect()
    new = box.offer("k2", parcel_of(100_000, seed=1))
    assert new.routes[0].address == old.routes[0].address, "the memory is used again"  # type: ignore[union-attr]
    with pytest.raises(FetchError, match="something else"):
        reader.fetch(old, 5)


def test_a_frozen_peer_costs_our_own_deadline_and_its_slot_is_not_used_meanwhile(site: Site) -> None:
    frozen = threading.Event()
    engine = FakeEngine(frozen=frozen)
    ours = Mooncake("127.0.0.1", TRUSTED, engine)
    offer = outbox(site, Mooncake("127.0.0.1", TRUSTED, FakeEngine())).offer("k", parcel_of(100_000))
    route = offer.routes[0]
    assert isinstance(route, MooncakeRoute)
    caller = Caller("test")
    for _ in range(MAX_STUCK):
        with pytest.raises(TransferError, match="deadline"):
            ours.read(route, offer.tensors, caller, 0.01)
    with pytest.raises(TransferError, match="hang"):
        ours.read(route, offer.tensors, caller, 0.01)
    assert len(engine.registered) == MAX_STUCK + 1, "each has memory of its own for as long as it may be written to"
    frozen.set()
    caller.close()


def test_whatever_fails_goes_over_zmq(site: Site) -> None:
    parcel = parcel_of(100_000)
    offer = outbox(site, Mooncake("127.0.0.1", TRUSTED, FakeEngine())).offer("k", parcel)
    broken = FakeEngine()
    reader = fetcher(site, Mooncake("127.0.0.1", TRUSTED, broken))
    broken.rc = -1
    assert same(reader.fetch(offer, 5), parcel)
    assert reader.last_route == "zmq"
    assert "code -1" in reader.last_failures[0]
    nothing = fetcher(site, None)
    assert same(nothing.fetch(offer, 5), parcel)
    assert nothing.last_route == "zmq"
    assert [type(r) for r in outbox(site, None).offer("x", parcel).routes] == [ZmqRoute]


def test_only_where_the_network_is_trusted(site: Site) -> None:
    assert trusts(["10.0.0.0/8"], "10.1.2.3")
    assert trusts(["fd00::/8"], "[fd00::1]")
    assert not trusts(["10.0.0.0/8"], "11.1.2.3")
    assert not trusts(["10.0.0.0/8"], "node-1"), "who answers to a name is not known"
    assert not trusts([], "127.0.0.1")
    with pytest.raises(TransferError, match="trusted_networks"):
        Mooncake("192.168.0.1", TRUSTED, FakeEngine())
    reader = fetcher(site, Mooncake("127.0.0.1", TRUSTED, engine := FakeEngine()))
    offer = outbox(site, Mooncake("10.0.0.1", ["10.0.0.0/8"], FakeEngine())).offer("k", parcel_of(100_000))
    reader.fetch(offer, 5)
    assert (reader.last_route, engine.reads) == ("zmq", [])


def test_auto_makes_what_somebody_can_use(site: Site) -> None:
    box = outbox(site, Mooncake("127.0.0.1", TRUSTED, FakeEngine()), "auto")
    kinds = {}
    for here, elsewhere in ((True, False), (False, True), (True, True)):
        box.set_reach(Reach(here, elsewhere))
        kinds[here, elsewhere] = [type(r) for r in box.offer("k", parcel_of(100_000)).routes]
    assert kinds == {
        (True, False): [ShmRoute, ZmqRoute],
        (False, True): [MooncakeRoute, ZmqRoute],
        (True, True): [ShmRoute, MooncakeRoute, ZmqRoute],
    }


def test_a_full_pool_is_no_error(site: Site) -> None:
    engine = Mooncake("127.0.0.1", TRUSTED, FakeEngine(), pool_bytes=1 << 20)
    box = outbox(site, engine)
    assert type(box.offer("a", parcel_of(500_000)).routes[0]) is MooncakeRoute
    offer = box.offer("b", parcel_of(900_000))
    assert [type(r) for r in offer.routes] == [ZmqRoute]


@pytest.mark.skipif(bool(mooncake.probe()), reason=f"Mooncake does not import here: {mooncake.probe()}")
def test_the_real_engine(site: Site) -> None:
    one, two = mooncake.start("127.0.0.1", TRUSTED), mooncake.start("127.0.0.1", TRUSTED)
    assert one is not None
    assert two is not None
    box, reader = outbox(site, one), fetcher(site, two)
    for size in SIZES:
        parcel = parcel_of(size, 100)
        assert same(reader.fetch(box.offer(f"k{size}", parcel), 10), parcel)
        assert reader.last_route == "mooncake"
    gone = MooncakeRoute("127.0.0.1:1", 1, b"x" * 16)
    with pytest.raises(TransferError, match="code"):
        two.read(gone, (), Caller("test"), 10)
