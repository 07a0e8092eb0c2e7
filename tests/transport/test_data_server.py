"""The data server serves its peers and survives everything else."""

import gc
import signal
import subprocess
import sys
import threading
from pathlib import Path

import msgspec
import pytest
import xxhash

from stages.protocol import CHUNK_BYTES, Offer, ZmqRoute
from stages.transport.base import FetchError, UploadError
from stages.transport.data_client import DataClient
from stages.transport.transfers import WINDOW, Download, Upload
from tests.transport.kit import FakeSink, Keys, Site, parcel_of, same

ROOT = Path(__file__).parents[2]


def doomed(site: Site, fatal_read: int, how: str) -> tuple[subprocess.Popen[str], Offer]:
    command = [sys.executable, "-m", "tests.transport.doomed", site.client.public, str(fatal_read), how]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    offer = msgspec.msgpack.decode(bytes.fromhex(process.stdout.readline()), type=Offer)
    return process, offer


@pytest.mark.parametrize("how", ["SIGKILL", "SIGSTOP"])
def test_producer_killed_or_frozen_mid_fetch(site: Site, how: str) -> None:
    process, offer = doomed(site, 7, how)
    try:
        with pytest.raises(FetchError, match=r"zmq: (connection lost|no progress)"):
            site.fetcher().fetch(offer, 30)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == -signal.SIGKILL


def test_deadline_ends_a_fetch_from_a_frozen_producer(site: Site) -> None:
    process, offer = doomed(site, 2, "SIGSTOP")
    try:
        with pytest.raises(FetchError, match="the deadline passed"):
            site.fetcher(stall_s=60).fetch(offer, 0.3)
    finally:
        process.kill()
        process.communicate()


def test_server_restart_on_the_same_port(site: Site) -> None:
    parcel = parcel_of(3 << 20)
    box = site.outbox("zmq")
    offer = box.offer("k", parcel)
    fetcher = site.fetcher()
    assert same(fetcher.fetch(offer, 5), parcel)
    server = site.servers.pop()
    assert server.stop()
    with pytest.raises(FetchError, match="connection lost"):
        fetcher.fetch(offer, 5)
    again = site.server(port=server.port)
    assert again.endpoint == server.endpoint
    again.start(box.read)
    assert same(fetcher.fetch(offer, 5), parcel)
    again.stop()
    site.server(port=server.port).start(box.read)
    assert same(fetcher.fetch(offer, 5), parcel)  # the broken connection is noticed before it is used


def test_port_in_use_is_an_oserror(site: Site) -> None:
    server = site.server()
    with pytest.raises(OSError, match=str(server.port)):
        site.server(port=server.port)


def test_window_is_kept_and_chunks_are_bounded() -> None:
    parcel = parcel_of(10 * CHUNK_BYTES + 5)
    regions = [memoryview(bytearray(desc.nbytes)) for desc in parcel.tensors]
    download = Download("k", parcel.tensors, regions)
    asked = []
    while (request := download.next_request()) is not None:
        asked.append(request)
    assert len(asked) == WINDOW
    asked.reverse()  # answers may come in any order, and twice
    while asked:
        head, _ = asked.pop()
        get = msgspec.msgpack.decode(head)
        view = parcel.buffers[0][get[3] : get[3] + get[4]]
        assert view.nbytes <= CHUNK_BYTES
        assert download.on_reply(head, view)
        assert not download.on_reply(head, view)
        while (request := download.next_request()) is not None:
            asked.append(request)
        assert len(asked) <= WINDOW
    assert download.done
    assert regions[0] == parcel.buffers[0]


def test_stale_and_foreign_replies_are_ignored() -> None:
    parcel = parcel_of(100)
    download = Download("k", parcel.tensors, [memoryview(bytearray(100))])
    request = download.next_request()
    assert request is not None
    head, _ = request
    for stale in (
        ["get", "other", 0, 0, 100], ["get", "k", 0, 1, 99], ["get", "k", 1, 0, 100], ["get", "k", 0, 0, 99],
        ["error", "other", "gone"], ["put", "k", 0, 1, 1], "x", None,
    ):  # fmt: skip
        assert not download.on_reply(msgspec.msgpack.encode(stale), parcel.buffers[0])
    assert not download.on_reply(b"\xc1", None)
    assert not download.done
    download.rewind()
    assert download.next_request() == (head, None)
    assert download.on_reply(head, parcel.buffers[0])
    assert download.done


def test_client_keeps_few_connections(site: Site) -> None:
    parcel = parcel_of(100)
    servers = [site.server() for _ in range(5)]
    client = DataClient(site.client.public, site.client.secret, max_peers=3)
    for server in servers * 2:
        server.start(lambda *_: parcel.buffers[0]) if not server.alive else None
        regions = [memoryview(bytearray(100))]
        end = 1e18
        client.run(server.endpoint, site.keys.public, Download("k", parcel.tensors, regions), end)
        assert regions[0] == parcel.buffers[0]
        assert client.connections <= 3
    client.close()


@pytest.mark.parametrize("size", [0, 1, CHUNK_BYTES, CHUNK_BYTES + 1, 9 * CHUNK_BYTES + 7])
@pytest.mark.parametrize("slow", [0, 2])
def test_upload(site: Site, size: int, slow: int) -> None:
    sink = FakeSink(slow=slow)
    server = site.server()
    server.start(lambda *_: None, sink)
    data = bytes(parcel_of(size).buffers[0])
    fetcher = site.fetcher()
    for _ in range(2):  # putting it again is harmless
        fetcher.upload(server.endpoint, site.keys.public, "r/decode/1", data, xxhash.xxh3_64_intdigest(data), 10)
        assert sink.parts["r/decode/1"] == data


def test_upload_refused(site: Site) -> None:
    server, closed = site.server(), site.server()
    server.start(lambda *_: None, FakeSink(answer="full"))
    closed.start(lambda *_: None)
    fetcher = site.fetcher()
    for target, code in ((server, "full"), (closed, "bad_request")):
        with pytest.raises(UploadError) as caught:
            fetcher.upload(target.endpoint, site.keys.public, "k", b"abc", 1, 10)
        assert caught.value.code == code
    server.stop()
    with pytest.raises(UploadError) as caught:
        fetcher.upload(server.endpoint, site.keys.public, "k", b"abc", 1, 10)
    assert caught.value.code == "lost"


def test_upload_starts_afresh_after_a_lost_connection() -> None:
    data = memoryview(bytes(3 * CHUNK_BYTES))
    upload = Upload("k", data, 5)
    first = upload.next_request()
    assert first is not None
    assert upload.on_reply(first[0], memoryview(b"ok"))
    upload.next_request()
    upload.rewind()
    again = upload.next_request()
    assert again is not None
    assert again[0] == first[0]
    assert not upload.on_reply(msgspec.msgpack.encode(["put", "k", 0, 1, 6]), memoryview(b"stored"))
    assert not upload.done


def test_faults_of_provider_and_sink_are_answered_and_counted(site: Site) -> None:
    def broken(*_args: object) -> memoryview:
        raise RuntimeError("a bug")

    class BrokenSink(FakeSink):
        def write(self, key: str, offset: int, total: int, checksum: int, data: memoryview) -> str:
            raise RuntimeError("a bug")

    server = site.server()
    server.start(broken, BrokenSink())
    parcel = parcel_of(100)
    fetcher = site.fetcher()
    route = ZmqRoute(server.endpoint, site.keys.public)
    with pytest.raises(FetchError, match="'failed'"):
        fetcher.fetch(Offer("k", parcel.tree, parcel.tensors, (route,)), 5)
    with pytest.raises(UploadError, match="'failed'"):
        fetcher.upload(server.endpoint, site.keys.public, "k", b"abc", 1, 10)
    assert server.stats.faults == 2
    assert server.alive


def test_a_provider_that_gives_too_little_is_a_bad_request(site: Site) -> None:
    server = site.server()
    server.start(lambda *_: memoryview(b"short"))
    parcel = parcel_of(100)
    route = ZmqRoute(server.endpoint, site.keys.public)
    with pytest.raises(FetchError, match="bad_request"):
        site.fetcher().fetch(Offer("k", parcel.tree, parcel.tensors, (route,)), 5)


def test_stop_is_idempotent_and_needs_no_start(site: Site) -> None:
    server = site.server()
    assert server.stop()
    assert server.stop()
    assert not server.alive


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts in /proc")
def test_nothing_leaks(site: Site) -> None:
    parcel = parcel_of(2 << 20)

    def round_() -> None:
        keys = Keys.make()
        one = Site(site.root, keys)
        offer = one.outbox("auto").offer("k", parcel)
        for host in ("here", "there"):
            assert same(one.fetcher(host=host).fetch(offer, 5), parcel)
        one.close()
        gc.collect()

    def count() -> tuple[int, int, int]:
        kinds = [len(list(Path("/proc/self", kind).iterdir())) for kind in ("fd", "task")]
        return kinds[0], kinds[1], threading.active_count()

    round_()
    before = count()
    for _ in range(5):
        round_()
    assert count() == before
