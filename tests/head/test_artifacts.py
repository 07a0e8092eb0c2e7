"""Uploads: verified, published once, and as durable as their head says."""

from pathlib import Path

import pytest
import xxhash

from disagctl.artifacts import ArtifactStore, MissingArtifact
from stages.protocol import Artifact

DATA = bytes(range(256)) * 1000
SUM = xxhash.xxh3_64_intdigest(DATA)
PNG = Artifact("image/png", len(DATA), SUM)


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    for name in ("artifacts", "inputs"):
        (tmp_path / name).mkdir()
    return tmp_path / "artifacts", tmp_path / "inputs"


def put(store: ArtifactStore, start: int, end: int, checksum: int = SUM) -> str:
    return store.write("r/decode/1", start, len(DATA), checksum, memoryview(DATA)[start:end])


def test_an_upload_is_published_once_and_by_the_next_head_too(folders: tuple[Path, Path]) -> None:
    store = ArtifactStore(*folders)
    assert put(store, 0, 1000) == "ok"
    assert put(store, 1000, len(DATA)) == "stored"
    assert put(store, 1000, len(DATA)) == "stored", "the answer was lost, and the last chunk came again"
    after_a_crash = ArtifactStore(*folders)
    name = after_a_crash.publish("r/decode/1", "img_x_1", PNG)
    assert (folders[0] / name).read_bytes() == DATA
    assert after_a_crash.publish("r/decode/1", "img_x_1", PNG) == name
    assert not list((folders[0] / "parts").iterdir())


def test_half_an_upload_is_nothing(folders: tuple[Path, Path]) -> None:
    assert put(ArtifactStore(*folders), 0, 1000) == "ok"
    store = ArtifactStore(*folders)
    assert put(store, 1000, len(DATA)) == "bad_request"
    with pytest.raises(MissingArtifact):
        store.publish("r/decode/1", "img_x_1", PNG)
    assert not list((folders[0] / "parts").iterdir())


def test_other_bytes_than_promised_are_refused(folders: tuple[Path, Path]) -> None:
    store = ArtifactStore(*folders)
    assert put(store, 0, len(DATA), checksum=1) == "bad_request"
    with pytest.raises(MissingArtifact):
        store.publish("r/decode/1", "img_x_1", PNG)
