"""status in all its forms, also in a real terminal."""

import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest

from disagctl.views import StatusView
from tests.cli.conftest import Cli
from tests.cli.fake_admin import FakeHead

# httpcore leaves a socket that could not be connected to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning")

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "disagctl.cli.main"]


def test_table_and_json(head: FakeHead, cli: Cli) -> None:
    code, out, _ = cli("status", "demo")
    assert code == 0
    assert "\x1b" not in out
    for word in ("degraded", "2/3", "denoise", "loading weights", "incarnation 1", "lambda us-east-1"):
        assert word in out
    view = msgspec.json.decode(cli("status", "demo", "-o", "json")[1], type=StatusView)
    assert (view.name, view.schema_version) == ("demo", 1)


def test_all_services(head: FakeHead, cli: Cli) -> None:
    assert "demo" in cli("status")[1]
    document = json.loads(cli("status", "-o", "json")[1])
    assert document["schema_version"] == 1
    assert [msgspec.convert(one, StatusView).name for one in document["services"]] == ["demo"]


def test_none(cli: Cli) -> None:
    assert cli("status")[:2] == (0, "no services here — disagctl up SPEC starts one\n")
    assert json.loads(cli("status", "-o", "json")[1])["services"] == []


def test_without_a_head(head: FakeHead, cli: Cli) -> None:
    head.stop()
    code, out, _ = cli("status", "demo")
    assert code == 0
    assert "head_down" in out
    assert msgspec.json.decode(cli("status", "demo", "-o", "json")[1], type=StatusView).state == "head_down"


def test_a_damaged_record_does_not_hide_the_others(head: FakeHead, home: Path, cli: Cli) -> None:
    broken = home / "services" / "broken"
    broken.mkdir()
    (broken / "service.json").write_text("{")
    code, out, err = cli("status")
    assert (code, "demo" in out) == (0, True)
    assert "damaged" in err


def test_watch_json_is_ndjson_until_interrupted(head: FakeHead) -> None:
    command = [*COMMAND, "status", "demo", "-w", "-o", "json", "--interval", "0.1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) as process:
        assert process.stdout is not None
        for _ in range(4):
            assert msgspec.json.decode(process.stdout.readline(), type=StatusView).name == "demo"
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130


def test_watch_survives_the_head(head: FakeHead) -> None:
    command = [*COMMAND, "status", "demo", "-w", "-o", "json", "--interval", "0.1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) as process:
        assert process.stdout is not None
        process.stdout.readline()
        head.stop()
        states = {msgspec.json.decode(process.stdout.readline(), type=StatusView).state for _ in range(3)}
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130
    assert "head_down" in states


def test_watch_in_a_pipe_writes_lines(head: FakeHead) -> None:
    command = [*COMMAND, "status", "demo", "-w", "--interval", "0.1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT, text=True) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=10)
    assert first == "demo: degraded — encode 1/1, denoise 2/3, decode 1/1\n"


def in_terminal(command: list[str], until: str, keys: bytes) -> tuple[int, str]:
    """Run in a pseudo-terminal; once ``until`` is on the screen press ``keys``. (exit code, everything written)."""
    pid, fd = pty.fork()
    if pid == 0:
        os.chdir(ROOT)
        os.environ.update(TERM="xterm-256color", COLUMNS="110", LINES="40")
        os.execv(command[0], command)  # noqa: S606  # the child of the fork
    seen, pressed, end_s = b"", False, time.monotonic() + 20
    while time.monotonic() < end_s:
        if select.select([fd], [], [], 0.1)[0]:
            try:
                seen += os.read(fd, 1 << 16)
            except OSError:
                break
        if not pressed and until.encode() in seen:
            os.write(fd, keys)
            pressed = True
    os.close(fd)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), seen.decode("utf-8", "replace")


def test_watch_in_a_terminal_restores_the_screen(head: FakeHead) -> None:
    code, seen = in_terminal([*COMMAND, "status", "demo", "-w", "--interval", "0.1"], "denoise", b"\x03")
    assert code == 130
    assert seen.count("\x1b[?1049h") == seen.count("\x1b[?1049l") == 1
    assert seen.rindex("\x1b[?25h") > seen.rindex("\x1b[?25l")
    assert "\x1b[31m\x1b" not in seen


def test_down_asks_in_a_terminal(head: FakeHead) -> None:
    code, seen = in_terminal([*COMMAND, "down", "demo"], "Go on?", b"n\r")
    assert code == 2
    assert "5 worker(s)" in seen
    assert "error[not_confirmed]" in seen
