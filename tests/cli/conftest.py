"""A home of its own for every test, and a head to talk to."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from disagctl.cli.main import run
from tests.cli.fake_admin import FakeHead

Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "home"
    folder.mkdir(mode=0o700)
    monkeypatch.setenv("DISAGCTL_HOME", str(folder))
    monkeypatch.chdir(tmp_path)
    return folder


@pytest.fixture
def head(home: Path) -> Iterator[FakeHead]:
    fake = FakeHead(home)
    yield fake
    fake.stop()


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    """Run a command line in this process: (exit code, stdout, stderr)."""

    def call(*args: str) -> tuple[int, str, str]:
        code = run(args)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call
