"""The solver's process: its limits hold, it ends with us, and what comes back is checked."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import msgspec
import psutil
import pytest

from disagctl.errors import InfeasibleError, UnexpectedError, WaitTimeout
from disagctl.planning import solver_process
from disagctl.planning.protocol import Answer, Job
from disagctl.planning.solver_process import solve
from planner.domain import Workload
from planner.plan import Infeasible, PlanRequest

JOB = Job(PlanRequest(workload=Workload(()), offers=(), gpus=()), time_limit_s=0.2)
SLEEPER = "import time; time.sleep(600)"


def run_instead(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    monkeypatch.setattr(solver_process, "WORKER", ("-c", code))


def children() -> set[int]:
    return {child.pid for child in psutil.Process().children(recursive=True)}


@pytest.fixture(autouse=True)
def none_left() -> Iterator[None]:
    before = children()
    yield
    assert children() <= before


def answering(answer: Answer) -> str:
    data = msgspec.msgpack.encode(answer)
    return f"import sys; sys.stdin.buffer.read(); sys.stdout.buffer.write({data!r})"


def test_an_answer_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    run_instead(monkeypatch, answering(Answer(plan=Infeasible("infeasible", "slo", "too slow"))))
    assert solve(JOB).plan == Infeasible("infeasible", "slo", "too slow")


def test_a_solver_that_does_not_come_back_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    run_instead(monkeypatch, SLEEPER)
    started = time.monotonic()
    with pytest.raises(WaitTimeout, match="no plan after") as caught:
        solve(JOB, grace_s=0.3)
    assert time.monotonic() - started < 5
    assert caught.value.exit_code == 8


def test_waiting_is_shown_from_two_seconds_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(solver_process, "QUIET_S", 0.1)
    shown: list[str] = []

    @contextlib.contextmanager
    def waiting() -> Iterator[None]:
        shown.append("begin")
        yield
        shown.append("end")

    run_instead(monkeypatch, answering(Answer(plan=Infeasible("infeasible", "slo", "x"))))
    monkeypatch.setattr(solver_process, "QUIET_S", 30.0)
    solve(JOB, waiting=waiting)
    assert shown == []
    monkeypatch.setattr(solver_process, "QUIET_S", 0.05)
    run_instead(
        monkeypatch, "import time; time.sleep(0.5);" + answering(Answer(plan=Infeasible("infeasible", "slo", "x")))
    )
    solve(JOB, waiting=waiting, grace_s=30)
    assert shown == ["begin", "end"]


def test_interrupting_us_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    run_instead(monkeypatch, SLEEPER)
    threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        solve(JOB, grace_s=60)


def test_it_ends_with_its_parent(tmp_path: object) -> None:
    code = (
        "import os, subprocess, sys\n"
        "alive, held = os.pipe()\n"
        "child = subprocess.Popen([sys.executable, '-m', 'disagctl.planning.worker', str(alive)], stdin=subprocess.PIPE,"
        " pass_fds=(alive,), start_new_session=True)\n"
        "print(child.pid, flush=True)\n"
        "sys.stdin.read()\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert parent.stdout is not None
    worker = psutil.Process(int(parent.stdout.readline()))
    time.sleep(1.0)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    assert parent.stdin is not None
    parent.stdin.close()
    deadline = time.monotonic() + 10
    while worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("code", "error", "words"),
    [
        ("import sys; sys.exit('boom: no such thing')", UnexpectedError, "boom"),
        ("print('hello')", UnexpectedError, "ended with 0"),
        ("raise MemoryError", InfeasibleError, "memory"),
        ("import os; os.kill(os.getpid(), 9)", UnexpectedError, "-9"),
        (answering(Answer(error="KeyError: 'x'")), UnexpectedError, "KeyError"),
    ],
)
def test_a_solver_that_dies(code: str, error: type[Exception], words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    run_instead(monkeypatch, code)
    with pytest.raises(error, match=words):
        solve(JOB, grace_s=30)


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    code = (
        "from disagctl.planning import worker; import resource, sys\n"
        "worker._limit_memory(1 << 30)\n"
        "assert resource.getrlimit(resource.RLIMIT_AS)[0] == 1 << 30\n"
        "bytearray(2 << 30)\n"
    )
    run_instead(monkeypatch, code)
    with pytest.raises(InfeasibleError, match="too large"):
        solve(JOB, grace_s=30)
