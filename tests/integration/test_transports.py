"""RELIABILITY 10 and the transports that only some networks have, with real processes."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from stages.transport.mooncake import probe
from tests.integration.harness import SYNTHETIC, Service, service

SEEDS = range(24)
FAULTS = "DISAGCTL_TEST_FAULTS"
MOONCAKE = "mooncake, trusted_networks: [127.0.0.0/8]"


@contextmanager
def running(home: Path, name: str, transport: str, *, cache: bool = False) -> Iterator[Service]:
    text = SYNTHETIC.format(name=name, encode_bytes=200_000, denoise_bytes=300_001, artifact_bytes=100, mode=transport)
    with service(home, text.replace("encoder_cache: false", f"encoder_cache: {str(cache).lower()}")) as made:
        yield made


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[int, bytes]:
    """What a run over clean shared memory makes."""
    with running(tmp_path_factory.mktemp("clean"), "clean", "auto") as made:
        pictures = made.images(SEEDS, "clean")
        routes = made.status().routes
    assert {route.transport for route in routes} == {"shm"}
    assert all(route.source.startswith("n1.") and route.target.startswith("n1.") for route in routes)
    assert {route.why for route in routes} == {"the same host"}
    return pictures


@pytest.mark.parametrize(
    "faults",
    [
        '{"delay": 0.05, "delay_s": 0.2, "loss": 0.01, "seed": 1}',
        '{"flip": 0.1, "tear": 0.1, "truncate": 0.1, "seed": 2}',
        '{"loss": 0.4, "seed": 3}',
        '{"bytes_per_s": 1250000, "seed": 4}',
    ],
)
def test_a_bad_network_loses_nothing_and_changes_no_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, expected: dict[int, bytes], faults: str
) -> None:
    monkeypatch.setenv(FAULTS, faults)
    with running(tmp_path, "faulty", "auto") as made:
        assert made.images(SEEDS, "faulty") == expected
        counts = made.status().requests
    assert (counts.succeeded, counts.failed) == (len(SEEDS), 0)


def test_through_a_store_that_holds_nothing_readable_and_nothing_afterwards(
    tmp_path: Path, expected: dict[int, bytes]
) -> None:
    store = tmp_path / "store"
    with running(tmp_path / "home", "relayed", f"relay, relay: 'file://{store}'") as made:
        seen: set[bytes] = set()
        with made.under_way(SEEDS, "relayed") as pictures:
            while not pictures.done():
                for path in store.rglob("*"):
                    try:
                        seen.add(path.read_bytes())
                    except OSError:  # a folder, or released meanwhile
                        continue
            assert pictures.result() == expected
        assert {route.transport for route in made.status().routes} == {"relay"}
        made.until(lambda _: not any(path.is_file() for path in store.rglob("*")))  # released, so deleted
    assert seen
    assert not [path for path in store.rglob("*") if path.name == "relayed"], "the service's prefix is gone, too"


@pytest.mark.skipif(bool(probe()), reason=f"Mooncake does not import here: {probe()}")
def test_over_mooncake_in_a_trusted_network(tmp_path: Path, expected: dict[int, bytes]) -> None:
    with running(tmp_path, "moon", MOONCAKE) as made:
        assert made.images(SEEDS, "moon") == expected
        assert {route.transport for route in made.status().routes} == {"mooncake"}
        with made.under_way(SEEDS, "killed") as pictures:  # a new process has a new session
            made.kill_worker("encode")
            made.kill_worker("denoise")
            assert pictures.result() == expected
        assert "mooncake" in {route.transport for route in made.status().routes}


def test_without_mooncake_it_says_so_and_goes_another_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, expected: dict[int, bytes]
) -> None:
    package = tmp_path / "path" / "mooncake"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise ImportError('libcuda.so.1: cannot open shared object file')")
    monkeypatch.setenv("PYTHONPATH", str(package.parent))
    with running(tmp_path / "home", "moonless", MOONCAKE) as made:
        assert made.images(SEEDS, "moonless") == expected
        status = made.status()
    assert {route.transport for route in status.routes} == {"zmq"}
    assert all("libcuda.so.1" in route.why for route in status.routes)
    assert any(event.kind == "transport" and "libcuda.so.1" in event.why for event in status.events)


def test_a_repeated_prompt_is_encoded_once(tmp_path: Path, expected: dict[int, bytes]) -> None:
    with running(tmp_path, "cached", "auto", cache=True) as made:
        assert made.images(SEEDS, "cached") == expected
        encode = next(stage for stage in made.status().stages if stage.stage == "encode")
    assert encode.computed + encode.remembered == len(SEEDS)
    assert encode.computed <= 2, "one prompt, two workers"
