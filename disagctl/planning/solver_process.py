"""Runs the solver in a process of its own: its time limit holds, its memory is bounded, and Ctrl-C ends it."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Final

import msgspec

from disagctl.errors import InfeasibleError, UnexpectedError, WaitTimeout
from disagctl.planning.protocol import Answer, Job
from disagctl.settings import child_environment

GRACE_S: Final = 15.0  # beyond the solver's own limit: start-up, building the problem, checking the solution
MEMORY_BYTES: Final = 6 << 30  # of address space, which is several times what is used
QUIET_S: Final = 2.0
WORKER = ("-m", "disagctl.planning.worker")

Waiting = Callable[[], contextlib.AbstractContextManager[object]]


def solve(job: Job, *, waiting: Waiting = contextlib.nullcontext, grace_s: float = GRACE_S) -> Answer:
    """The answer. ``waiting``: what is shown from two seconds on.

    Raises WaitTimeout when the solver did not come back in time and was killed, UnexpectedError when it died.
    """
    job.memory_bytes = job.memory_bytes or MEMORY_BYTES
    alive, held = os.pipe()
    try:
        process = _start(alive)
    finally:
        os.close(alive)
    deadline_s = time.monotonic() + job.time_limit_s + job.sweep_s + grace_s
    try:
        out, err = _communicate(process, msgspec.msgpack.encode(job), deadline_s, waiting)
    except subprocess.TimeoutExpired as late:
        raise WaitTimeout(
            f"no plan after {job.time_limit_s + grace_s:.0f} s", why="the solver was stopped",
            next="give it more with --time-limit, or name fewer GPUs or clouds", code="solver_timeout",
        ) from late  # fmt: skip
    finally:
        os.close(held)
        _kill(process)
    return _read(out, err, process.returncode)


def _start(alive: int) -> "subprocess.Popen[bytes]":
    """In a session of its own: Ctrl-C reaches us alone, and we end it."""
    return subprocess.Popen(
        [sys.executable, *WORKER, str(alive)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env=child_environment(), pass_fds=(alive,), start_new_session=True,
    )  # fmt: skip


def _communicate(
    process: "subprocess.Popen[bytes]", data: bytes, deadline_s: float, waiting: Waiting
) -> tuple[bytes, bytes]:
    with contextlib.suppress(subprocess.TimeoutExpired):
        return process.communicate(data, timeout=min(QUIET_S, max(deadline_s - time.monotonic(), 0.01)))
    with waiting():
        return process.communicate(timeout=max(deadline_s - time.monotonic(), 0.01))


def _kill(process: "subprocess.Popen[bytes]") -> None:
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()


def _read(out: bytes, err: bytes, code: int) -> Answer:
    try:
        answer = msgspec.msgpack.decode(out, type=Answer)
    except msgspec.DecodeError as broken:
        words = err.decode("utf-8", "replace").strip().splitlines()
        if any("MemoryError" in word or "bad_alloc" in word for word in words):
            raise InfeasibleError(
                "the problem is too large to solve here", why="the solver ran out of memory",
                next="name fewer GPUs or clouds, or fewer shapes", code="solver_memory",
            ) from broken  # fmt: skip
        why = words[-1][:300] if words else f"it ended with {code} and said nothing"
        raise UnexpectedError("the solver died", why=why, code="solver_died") from broken
    if answer.error:
        raise UnexpectedError("the planner failed", why=answer.error, code="planner_failed")
    return answer
