"""Logs: finding, naming, tailing, following."""

import subprocess
import sys
from pathlib import Path

import pytest

from disagctl.cli.logfiles import Reader, Source, readable
from tests.cli.conftest import Cli
from tests.cli.fake_admin import FakeHead

ROOT = Path(__file__).parents[2]


def became(stage: str) -> str:
    return f"2026-11-20 12:00:00,000 INFO stages.pipeline: becoming Wan2.1.{stage}\n"


@pytest.fixture
def logs(head: FakeHead) -> Path:
    folder = head.where.logs
    (folder / "head.log").write_text("head one\nhead two\n")
    (folder / "n1.log").write_text("agent\n")
    (folder / "n1.gpu0.log").write_text(became("denoise") + "step 1\rstep 2\r\n\x1b[31mred\x1b[0m\tx\nno end")
    (folder / "n1.gpu1.log").write_text(became("encode") + "".join(f"line {i}\n" for i in range(500)))
    (folder / "n1.gpu1.log.1").write_text("old\n")
    return folder


def test_all_sources(logs: Path, cli: Cli) -> None:
    code, out, _ = cli("logs", "demo", "--tail", "2")
    assert code == 0
    assert out.splitlines() == [
        "head │ head one",
        "head │ head two",
        "n1   │ agent",
        "gpu0 │ red    x",
        "gpu0 │ no end",
        "gpu1 │ line 498",
        "gpu1 │ line 499",
    ]


def test_one_stage(logs: Path, cli: Cli) -> None:
    assert cli("logs", "demo", "--stage", "denoise", "--tail", "1")[1] == "gpu0 │ no end\n"
    assert cli("logs", "demo", "--stage", "Wan2.1.encode", "--tail", "1")[1] == "gpu1 │ line 499\n"
    code, _, err = cli("logs", "demo", "--stage", "denose")
    assert code == 2
    assert "did you mean 'denoise'?" in err
    assert cli("logs", "demo", "--tail", "0")[1] == ""


def test_long_lines_are_not_folded(logs: Path, cli: Cli) -> None:
    (logs / "n1.log").write_text("x" * 3000 + "\n")
    assert "x" * 3000 in cli("logs", "demo", "--tail", "1")[1]


def test_names_where_models_or_nodes_are_several(logs: Path) -> None:
    (logs / "n2.gpu0.log").write_text(became("denoise") + "there\n")
    reader = Reader(logs, "denoise", 1)
    assert [source for source, _ in reader.lines(last=True)] == ["n1.gpu0", "n2.gpu0"]


def test_a_worker_that_changed_its_role_is_shown_while_it_had_it(logs: Path) -> None:
    path = logs / "n1.gpu0.log"
    path.write_text(became("denoise") + "one\n" + became("decode") + "two\n" + became("denoise") + "three\n")
    reader = Reader(logs, "denoise", 100)
    shown = [line for source, line in reader.lines(last=False) if source == "gpu0"]
    assert [line for line in shown if "becoming" not in line] == ["one", "three"]
    with path.open("a") as file:
        file.write("four\n" + became("decode") + "five\n")
    assert [line for _, line in reader.lines(last=False)] == ["four"]


def test_following_growth_truncation_and_new_files(tmp_path: Path) -> None:
    path = tmp_path / "n1.gpu0.log"
    path.write_text("a\nb\nc")
    reader = Reader(tmp_path, None, 1)

    def new() -> list[str]:
        return [line for _, line in reader.lines(last=False)]

    assert new() == []  # the last line has not ended
    with path.open("a") as file:
        file.write("d\ne\n")
    assert new() == ["cd", "e"]
    path.write_text("f\n")
    assert new() == ["f"]
    (tmp_path / "n1.gpu1.log").write_text("g\n")
    assert new() == ["g"]
    path.unlink()
    assert new() == []


def test_bytes_that_are_no_text() -> None:
    assert readable(b"\xff\x00a") == "��a"
    assert "\x1b" not in readable(b"\x1b]0;title\x07 \x1b[2J \x9b31m")
    assert len(readable(b"x" * 100_000)) <= 4000


def test_tail_reads_only_the_end(tmp_path: Path) -> None:
    path = tmp_path / "head.log"
    with path.open("wb") as file:
        file.truncate(1 << 30)
        file.seek(0, 2)
        file.write(b"\nlast\n")
    assert list(Source(path).lines(1, last=True)) == ["last"]


def test_follow_shows_what_is_written(logs: Path) -> None:
    command = [sys.executable, "-m", "disagctl.cli.main", "logs", "demo", "-f", "--tail", "1", "--stage", "encode"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "gpu1 │ line 499\n"
        with (logs / "n1.gpu1.log").open("a") as file:
            file.write("new\n")
        assert process.stdout.readline() == "gpu1 │ new\n"
        process.terminate()
