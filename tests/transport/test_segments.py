"""Shared memory is checked before it is believed, and leaves nothing behind."""

import errno
import gc
import os
import threading
from pathlib import Path

import pytest

from stages.protocol import Offer, ShmRoute, ZmqRoute
from stages.transport import segments
from stages.transport.base import FetchError, OutboxError
from tests.transport.kit import Site, parcel_of, same


def offered(site: Site, size: int = 100_000):
    parcel = parcel_of(size)
    return parcel, site.outbox("shm").offer("a/../../b", parcel)


def files(site: Site) -> list[os.DirEntry]:
    return [entry for worker in os.scandir(site.root) for entry in os.scandir(worker.path)]


def offered_files(site: Site) -> list[os.DirEntry]:
    return [entry for entry in files(site) if entry.name.endswith(".seg")]


def test_modes_and_names(site: Site) -> None:
    _, offer = offered(site)
    (file,) = files(site)
    assert offer.routes[0].path == os.path.realpath(file.path)
    assert file.stat().st_mode & 0o777 == 0o600
    assert (site.root / "w0").stat().st_mode & 0o777 == 0o700
    assert site.root.stat().st_mode & 0o777 == 0o700


def test_flipped_bit_and_truncation_are_caught(site: Site) -> None:
    _, offer = offered(site)
    path = Path(offer.routes[0].path)
    with path.open("r+b") as file:
        file.seek(50_000)
        byte = file.read(1)[0]
        file.seek(50_000)
        file.write(bytes([byte ^ 4]))
    with pytest.raises(FetchError, match="checksum"):
        site.fetcher().fetch(offer, 1)
    os.truncate(path, 4096)
    with pytest.raises(FetchError, match="4096 bytes long"):
        site.fetcher().fetch(offer, 1)
    os.truncate(path, 0)
    with pytest.raises(FetchError, match="promised"):
        site.fetcher().fetch(offer, 1)


def test_links_fifos_and_ways_out_are_refused(site: Site, tmp_path) -> None:
    parcel, offer = offered(site)
    secret = tmp_path / "secret"
    Path(offer.routes[0].path).rename(secret)
    root = site.root.resolve()
    (root / "w0" / "link").symlink_to(secret)
    (root / "dir").symlink_to(tmp_path)
    os.mkfifo(root / "w0" / "fifo")
    (root / "w1").symlink_to(root / "w0")
    secret_inside = f"{root}/w0/real"
    bad = [
        f"{root}/w0/link", f"{root}/dir/secret", f"{root}/w0/fifo", f"{root}/../secret", f"{root}/w0/../../secret",
        str(secret), "relative", "", f"{root}", f"{root}/w0", f"{root}/w0/a\0b", f"{root}/w1/real",
    ]  # fmt: skip
    os.link(secret, secret_inside)
    for path in bad:
        with pytest.raises(segments.SegmentError):
            segments.map_segment(site.root.resolve(), path, parcel.tensors)
    assert segments.map_segment(site.root.resolve(), secret_inside, parcel.tensors)[0] == parcel.buffers[0]


def test_foreign_files_are_refused(site: Site, monkeypatch) -> None:
    parcel, offer = offered(site)
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    with pytest.raises(segments.SegmentError, match="ours"):
        segments.map_segment(site.root.resolve(), offer.routes[0].path, parcel.tensors)


def test_directories_others_can_enter_are_refused(tmp_path) -> None:
    open_dir = tmp_path / "open"
    open_dir.mkdir(mode=0o755)
    open_dir.chmod(0o755)
    with pytest.raises(segments.SegmentError, match="0700"):
        segments.prepare_dir(open_dir)
    (tmp_path / "mine").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "mine")
    with pytest.raises(segments.SegmentError, match="0700"):
        segments.prepare_dir(tmp_path / "link")
    loose = tmp_path / "loose"
    loose.mkdir()
    loose.chmod(0o777)
    with pytest.raises(segments.SegmentError, match="replace"):
        segments.prepare_dir(loose / "w")
    loose.chmod(0o1777)  # like /dev/shm: the sticky bit keeps others from renaming ours
    segments.prepare_dir(loose / "w")


def full(*_args) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_full_shared_memory_falls_back_to_process_memory(site: Site, monkeypatch) -> None:
    monkeypatch.setattr(segments, "_reserve", full)
    parcel = parcel_of(3_000_000)
    box = site.outbox("auto")
    offer = box.offer("k", parcel)
    assert [type(route) for route in offer.routes] == [ZmqRoute]
    assert box.shm_failures == 1
    assert "No space" in box.shm_error
    assert same(site.fetcher().fetch(offer, 5), parcel)
    assert files(site) == []
    assert box.held_bytes() == 3_000_000


def test_full_shared_memory_in_mode_shm_is_a_clear_error(site: Site, monkeypatch) -> None:
    monkeypatch.setattr(segments, "_reserve", full)
    box = site.outbox("shm")
    with pytest.raises(OutboxError, match="enlarge /dev/shm"):
        box.offer("k", parcel_of(100))
    assert box.held_bytes() == 0
    assert files(site) == []


def test_no_room_during_the_write_leaves_nothing(site: Site, monkeypatch) -> None:
    monkeypatch.setattr(segments, "_write", full)
    box = site.outbox("auto")
    assert [type(route) for route in box.offer("k", parcel_of(50_000)).routes] == [ZmqRoute]
    assert files(site) == []


def test_a_dropped_segment_is_written_again_once_nobody_reads_it(site: Site) -> None:
    box, fetcher = site.outbox("shm"), site.fetcher()

    def offer(key: str, seed: int) -> tuple[Offer, int]:
        made = box.offer(key, parcel_of(1 << 20, seed=seed))
        (route,) = made.routes
        assert isinstance(route, ShmRoute)
        return made, Path(route.path).stat().st_ino

    first, inode = offer("a", 1)
    read = fetcher.fetch(first, 5)
    box.drop("a")
    second, other = offer("b", 2)
    assert other != inode, "somebody still looks at the first"
    assert same(read, parcel_of(1 << 20, seed=1))
    del read
    gc.collect()
    third, again = offer("c", 3)
    assert again == inode
    assert same(fetcher.fetch(second, 5), parcel_of(1 << 20, seed=2))
    assert same(fetcher.fetch(third, 5), parcel_of(1 << 20, seed=3))
    with pytest.raises(FetchError, match="shm: "):
        fetcher.fetch(first, 5)
    box.drop("c")
    gc.collect()
    fourth, again = offer("d", 4)  # into the mapping that the third was written into
    assert again == inode
    read = fetcher.fetch(fourth, 5)
    box.drop("d")
    assert offer("e", 5)[1] != inode, "our own mapping is no reader, but there is one"
    assert same(read, parcel_of(1 << 20, seed=4))


def test_drop_close_and_removal_leave_no_file(site: Site) -> None:
    one, two = site.outbox("shm", worker="w1"), site.outbox("auto", worker="w2")
    for i in range(5):
        one.offer(f"k{i}", parcel_of(1000))
        two.offer(f"k{i}", parcel_of(100_000))
    one.offer("k0", parcel_of(10))  # supersedes
    assert len(offered_files(site)) == 10
    one.drop("k0")
    assert len(offered_files(site)) == 9
    one.close()
    assert [entry.name for entry in os.scandir(site.root)] == ["w2"]
    segments.remove_worker(site.root, "w2")
    segments.remove_worker(site.root, "w2")
    two.drop("k1")  # somebody removed it first
    assert two.read("k2", 0, 0, 10) is None
    assert list(os.scandir(site.root)) == []
    segments.remove_service(site.root)
    segments.remove_service(site.root)
    assert not site.root.exists()


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../x", "a\0"])
def test_removal_takes_worker_names_only(site: Site, name: str) -> None:
    with pytest.raises(ValueError, match="names no worker"):
        segments.remove_worker(site.root, name)


def test_removal_does_not_follow_links(site: Site, tmp_path) -> None:
    keep = tmp_path / "keep"
    keep.mkdir()
    (keep / "file").touch()
    site.root.mkdir()
    (site.root / "w").symlink_to(keep)
    with pytest.raises(OSError):
        segments.remove_worker(site.root, "w")
    segments.remove_service(site.root)
    assert (keep / "file").exists()


def test_threads_may_share_an_outbox(site: Site) -> None:
    box = site.outbox("auto", limit=10 << 20)
    parcels = [parcel_of(40_000 + i, seed=i) for i in range(8)]

    def work(i: int) -> None:
        for n in range(40):
            box.offer(f"{i}/{n % 3}", parcels[i])
            view = box.read(f"{i}/{n % 3}", 0, 10, 100)
            assert view == parcels[i].buffers[0][10:110]
            box.drop(f"{i}/{(n + 1) % 3}")

    errors: list[BaseException] = []

    def guarded(i: int) -> None:
        try:
            work(i)
        except BaseException as err:  # noqa: BLE001 - to be told by the main thread
            errors.append(err)

    threads = [threading.Thread(target=guarded, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    held = len(files(site))
    for i in range(8):
        for n in range(3):
            box.drop(f"{i}/{n}")
    assert held > 0
    assert box.held_bytes() == 0
    assert files(site) == []


def test_a_route_of_another_service_is_refused(site: Site, tmp_path) -> None:
    parcel, offer = offered(site)
    fetcher = Site(tmp_path / "other", site.client).fetcher()
    with pytest.raises(FetchError, match="shm: "):
        fetcher.fetch(offer, 1)
    fetcher.close()
    assert isinstance(offer.routes[0], ShmRoute)
    assert parcel.nbytes == 100_000
