"""auto takes what is measured to be fastest, says why, and notices when that changes."""

from collections import Counter

from stages.protocol import CHUNK_BYTES
from stages.transport.choice import AGAIN_EVERY, CLOSE_EVERY, REST, TRIES, Chooser
from stages.transport.transfers import MAX_WINDOW, WINDOW, Window

NAMES = ("mooncake", "zmq")
SMALL, LARGE = 1 << 20, 64 << 20


def play(chooser: Chooser, turns: int, seconds: dict[str, float], nbytes: int = LARGE, host: str = "h") -> Counter[str]:
    """So many transfers that take so long; which transport carried how many."""
    carried: Counter[str] = Counter()
    for _ in range(turns):
        (first, *_), _ = chooser.order(host, nbytes, NAMES)
        chooser.succeeded(host, nbytes, first, seconds[first])
        carried[first] += 1
    return carried


def test_the_fastest_carries_nearly_all() -> None:
    chooser = Chooser()
    assert play(chooser, 2 * TRIES, {"mooncake": 2.0, "zmq": 1.0}) == {"mooncake": TRIES, "zmq": TRIES}
    carried = play(chooser, 1000, {"mooncake": 2.0, "zmq": 1.0})
    assert carried["mooncake"] <= 1000 // AGAIN_EVERY + 1
    names, why = chooser.order("h", LARGE, NAMES)
    assert names == ["zmq", "mooncake"]
    assert why == "64.0 MiB to h: zmq 67 MB/s, mooncake 34 MB/s"


def test_sizes_and_hosts_are_judged_apart() -> None:
    chooser = Chooser()
    play(chooser, 100, {"mooncake": 1.0, "zmq": 2.0})
    play(chooser, 100, {"mooncake": 2.0, "zmq": 1.0}, SMALL)
    play(chooser, 100, {"mooncake": 2.0, "zmq": 1.0}, host="other")
    assert [chooser.order(*at, NAMES)[0][0] for at in (("h", LARGE), ("h", SMALL), ("other", LARGE))] == [
        "mooncake", "zmq", "zmq",
    ]  # fmt: skip


def test_a_network_that_changes() -> None:
    chooser = Chooser()
    play(chooser, 100, {"mooncake": 1.0, "zmq": 1.2})
    carried = play(chooser, 12 * CLOSE_EVERY, {"mooncake": 9.0, "zmq": 1.2})
    assert carried["zmq"] > 10 * CLOSE_EVERY


def test_what_failed_rests() -> None:
    chooser = Chooser()
    play(chooser, 100, {"mooncake": 1.0, "zmq": 2.0})
    chooser.failed("h", LARGE, "mooncake")
    assert play(chooser, REST - 1, {"mooncake": 1.0, "zmq": 2.0}) == {"zmq": REST - 1}
    assert play(chooser, 100, {"mooncake": 1.0, "zmq": 2.0})["mooncake"] > 50


def test_one_way_only() -> None:
    assert Chooser().order("h", SMALL, ["zmq"]) == (["zmq"], "the only one to h")


def test_the_window_covers_what_the_path_holds() -> None:
    rate, round_trip_s = 125e6, 0.1  # 1 Gbit/s over 100 ms: 12 chunks
    window = Window()
    for _ in range(10):
        window.answered(round_trip_s)
        nbytes = 64 * CHUNK_BYTES
        window.transferred(nbytes, max(nbytes / rate, nbytes / CHUNK_BYTES / window.chunks * round_trip_s))
    assert rate * round_trip_s < window.chunks * CHUNK_BYTES <= 2.2 * rate * round_trip_s


def test_the_window_is_bounded() -> None:
    window = Window()
    window.answered(10.0)
    window.transferred(1 << 30, 0.1)
    assert window.chunks == MAX_WINDOW
    near = Window()
    near.answered(1e-4)
    near.transferred(8 << 20, 0.01)
    near.transferred(10, 0.01)
    assert near.chunks == WINDOW
