"""Folders in which processes meet go with the worker that made them, at the latest when the next one is made."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from stages.models.meeting import LOCK, PREFIX, Meeting, sweep

OWNER = "from stages.models.meeting import Meeting; print(Meeting().folder, flush=True); input()"


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


def test_what_a_killed_owner_leaves_is_swept_and_what_a_live_one_has_is_not(tmp_path: Path) -> None:
    mine = Meeting()
    with subprocess.Popen([sys.executable, "-c", OWNER], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as owner:
        assert owner.stdout is not None
        other = Path(owner.stdout.readline().decode().strip())
        (other / "group1").touch()
        sweep()
        assert {Path(mine.folder), other} == set(tmp_path.glob(f"{PREFIX}*"))
        owner.send_signal(signal.SIGKILL)
        owner.wait()
    assert (other / LOCK).exists()
    later = Meeting()
    assert {Path(mine.folder), Path(later.folder)} == set(tmp_path.glob(f"{PREFIX}*"))
    mine.close()
    later.close()
    assert not list(tmp_path.iterdir())


def test_one_that_is_just_being_made_is_left_alone(tmp_path: Path) -> None:
    half = tmp_path / f"{PREFIX}half"
    half.mkdir()
    sweep()
    assert half.exists()
