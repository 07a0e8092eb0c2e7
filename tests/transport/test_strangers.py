"""Nobody who is not on the list gets a byte decoded, and nothing they send stops the server."""

import random
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
import pytest
import zmq

from stages.protocol import MAX_DATA_BYTES, Offer, ZmqRoute
from stages.transport.base import FetchError
from stages.transport.data_server import DataServer
from stages.transport.data_service import DataService, ServerStats
from stages.transport.messages import DataError, Get, Put
from tests.transport.kit import FakeSink, Keys, Site, parcel_of, same

GET = msgspec.msgpack.encode(Get("k", 0, 0, 100))


@contextmanager
def dealer(server: DataServer, keys: Keys | None, server_key: str = "") -> Iterator[zmq.Socket[bytes]]:
    """A hand-made client; ``keys`` None: no encryption."""
    with zmq.Context() as ctx, ctx.socket(zmq.DEALER) as sock:
        sock.setsockopt(zmq.LINGER, 0)
        sock.setsockopt(zmq.SNDHWM, 0)
        if keys is not None:
            sock.curve_publickey, sock.curve_secretkey = keys.public.encode(), keys.secret.encode()
            sock.curve_serverkey = (server_key or server.public_key).encode()
        sock.connect(server.endpoint)
        yield sock


def serving(site: Site) -> tuple[DataServer, Offer]:
    offer = site.outbox("zmq").offer("k", parcel_of(100))
    return site.servers[-1], offer


def assert_serves(site: Site, offer: Offer) -> None:
    assert same(site.fetcher().fetch(offer, 10), parcel_of(100))


def flood(sock: zmq.Socket[bytes]) -> None:
    for data in [GET] * 10_000 + [b"x" * (MAX_DATA_BYTES * 2)]:
        try:
            sock.send(data, zmq.NOBLOCK)
        except zmq.Again:  # refused already: libzmq has taken the connection away
            return


def wait_for(predicate) -> None:
    """Until the server's thread has got there; a bug is a timeout here, never a pass."""
    for _ in range(2000):
        if predicate():
            return
        time.sleep(0.005)
    pytest.fail("it never happened")


def test_unknown_key(site: Site) -> None:
    server, offer = serving(site)
    stranger = Keys.make()
    with pytest.raises(FetchError, match=r"zmq: connection lost \(handshake failed auth\)"):
        site.fetcher(keys=stranger).fetch(offer, 10)
    denied = server.denied
    with dealer(server, stranger) as sock:
        flood(sock)
        wait_for(lambda: server.denied > denied)
    assert server.stats == ServerStats()
    assert_serves(site, offer)


def test_wrong_server_key(site: Site) -> None:
    server, offer = serving(site)
    wrong = ZmqRoute(server.endpoint, Keys.make().public)
    with pytest.raises(FetchError, match=r"zmq: connection lost \(handshake failed"):
        site.fetcher().fetch(msgspec.structs.replace(offer, routes=(wrong,)), 10)
    assert server.stats == ServerStats()
    assert_serves(site, offer)


def test_no_encryption(site: Site) -> None:
    server, offer = serving(site)
    with dealer(server, None) as sock:
        flood(sock)
        assert not sock.poll(200)
        assert_serves(site, offer)
    assert server.stats.decoded == 1


def test_garbage_on_the_tcp_port(site: Site) -> None:
    server, offer = serving(site)
    rng = random.Random(3)
    greeting = b"\xff" + bytes(8) + b"\x7f\x03\x01" + b"CURVE".ljust(20, b"\0") + bytes(32)
    null_greeting = b"\xff" + bytes(8) + b"\x7f\x03\x01" + b"NULL".ljust(20, b"\0") + bytes(32)
    huge = b"\x06" + (1 << 62).to_bytes(8, "big")  # a command of 4 EiB
    openings = [b"", b"GET / HTTP/1.1\r\n\r\n", greeting, null_greeting, greeting + huge, null_greeting + huge]
    openings += [greeting + b"\x04\xc8\x05HELLO" + rng.randbytes(194)] + [rng.randbytes(5000) for _ in range(50)]
    idle = []
    for data in openings * 3:
        raw = socket.create_connection(("127.0.0.1", server.port))
        idle.append(raw)  # left open and silent, too
        try:
            raw.sendall(data)
        except OSError:
            continue  # cut off in the middle: just as well
    assert_serves(site, offer)
    for raw in idle:
        raw.close()
    assert_serves(site, offer)
    assert server.stats.decoded == 2
    assert server.stats.dropped == server.stats.faults == 0


def test_no_handler_means_no_entry(site: Site) -> None:
    """libzmq lets everybody in while no ZAP handler is bound, unless told otherwise."""
    server = site.server()
    server._peers.close()
    with dealer(server, Keys.make()) as sock:
        sock.send(GET)
        assert not server._router.poll(300)


def test_oversized_frame_of_a_peer(site: Site) -> None:
    server, offer = serving(site)
    with dealer(server, site.client) as sock:
        sock.send_multipart([GET, b"x" * (MAX_DATA_BYTES + 1)])
        assert not sock.poll(200)  # libzmq has closed the connection
    assert server.stats == ServerStats()
    assert_serves(site, offer)


def test_messages_of_too_many_parts_or_too_long_a_header(site: Site) -> None:
    server, offer = serving(site)
    with dealer(server, site.client) as sock:
        sock.send_multipart([GET] * 5000)
        sock.send_multipart([GET, b"", b""])
        sock.send(GET + b"\0" * 5000)
        sock.send(msgspec.msgpack.encode(Get("k" * 600, 0, 0, 1)))
        sock.send(b"\x91" * 4000)  # nested 4000 deep
        sock.send(b"\x96\xa3get\xa1k\0\0\1" + b"\x91" * 4000 + b"\0")  # and behind a good message
        sock.send(msgspec.msgpack.encode(DataError("k", "gone")))
        sock.send(b"")
        wait_for(lambda: server.stats.dropped == 8)
    assert server.stats.decoded == 5
    assert_serves(site, offer)


def test_a_revoked_peer_is_not_read_any_more(site: Site) -> None:
    server, offer = serving(site)
    fetcher = site.fetcher()
    assert_serves(site, offer)
    fetcher.fetch(offer, 10)
    decoded = server.stats.decoded
    server.set_peers([Keys.make().public])
    with pytest.raises(FetchError, match="no progress"):
        fetcher.fetch(offer, 10)  # on the connection that is open already
    with pytest.raises(FetchError, match="zmq: connection lost"):
        fetcher.fetch(offer, 10)  # on a new one
    assert server.stats.decoded == decoded
    assert server.stats.refused > 0
    server.set_peers([site.client.public])
    fetcher.fetch(offer, 10)


def test_a_peer_that_is_enrolled_a_moment_late_gets_in(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    server, offer = serving(site)
    server.set_peers([])
    fetcher = site.fetcher()
    read = server._peers.answer

    def answer() -> bool:
        answered = read()
        if server.denied:
            server.set_peers([site.client.public])
        return answered

    monkeypatch.setattr(server._peers, "answer", answer)
    fetcher.fetch(offer, 10)
    assert server.denied == 1


def fuzz_frames(rng: random.Random) -> list[bytes]:
    """One to three frames: noise, or a message with a field gone wrong."""
    message: list[Any] = rng.choice([["get", "k", 0, 0, 100], ["put", "k", 0, 3, 7], ["error", "k", "gone"]])
    odd: list[Any] = [
        None,
        -1,
        1 << 63,
        "",
        "k",
        b"\xff",
        [],
        {},
        1.5,
        True,
        2**20,
        ["get"] * 3,
        rng.randrange(-5, 200),
    ]
    for _ in range(rng.randrange(3)):
        message[rng.randrange(len(message))] = rng.choice(odd)
    head = bytearray(msgspec.msgpack.encode(message))
    if rng.random() < 0.5:
        head[rng.randrange(len(head))] ^= 1 << rng.randrange(8)
    if rng.random() < 0.2:
        head = bytearray(rng.randbytes(rng.randrange(200)))
    return [bytes(head), *(rng.randbytes(rng.randrange(300)) for _ in range(rng.randrange(3)))]


def test_fuzz_by_an_authenticated_peer(site: Site) -> None:
    parcel = parcel_of(100)
    server = site.server()
    server.start(lambda k, i, o, n: parcel.buffers[0][o : o + n] if (k, i) == ("k", 0) else None, FakeSink())
    stats = server.stats
    rng = random.Random(11)
    with dealer(server, site.client) as sock:
        for _ in range(5000):
            sock.send_multipart(fuzz_frames(rng))
            while sock.poll(0):
                sock.recv_multipart()
        sock.send(msgspec.msgpack.encode(Get("last", 0, 0, 1)))
        last = msgspec.msgpack.encode(DataError("last", "gone"))
        while sock.recv_multipart() != [last]:
            pass
    assert stats.dropped > 500
    assert stats.errors > 200
    assert stats.served > 100
    assert stats.faults == 0
    assert server.alive
    assert_serves(site, Offer("k", parcel.tree, parcel.tensors, (ZmqRoute(server.endpoint, site.keys.public),)))


def test_fuzz_of_the_service_itself() -> None:
    data = memoryview(bytes(100))
    stats = ServerStats()
    service = DataService(lambda k, i, o, n: data[o : o + n] if (k, i) == ("k", 0) else None, FakeSink(), stats)
    rng = random.Random(12)
    for _ in range(20_000):
        head, *rest = fuzz_frames(rng)
        reply = service.answer(head, memoryview(rest[0]) if rest else None)
        assert reply is None or isinstance(msgspec.msgpack.decode(reply[0], type=Get | Put | DataError), object)
    assert stats.decoded == 20_000
    assert stats.faults == 0
