"""Waiting for a service to be ready, and what keeps it from it as an error with its exit code. One up or down at a time."""

import fcntl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from disagctl.admin_client import head_status
from disagctl.errors import (
    CredentialsError,
    InfeasibleError,
    OverBudgetError,
    UnhealthyError,
    UsageError,
    WaitTimeout,
)
from disagctl.state import ServicePaths
from disagctl.views import StatusView, TroubleView

POLL_S: Final = 0.2

OnStatus = Callable[[StatusView], None]


def await_ready(where: ServicePaths, wait_s: float, on_progress: OnStatus, poll_s: float = POLL_S) -> None:
    """Until it is ready. Raises what keeps it from it, or WaitTimeout."""
    deadline = time.monotonic() + wait_s
    while True:
        status = head_status(where)
        if status is None:
            raise UnhealthyError(
                "the head has ended", why=last_line(where.logs / "head.log"), next=f"disagctl logs {where.name}"
            )
        on_progress(status)
        if status.state == "ready":
            return
        for trouble in status.troubles:
            _refuse(trouble, where.name)
        broken = next((w for w in status.workers if w.failed), None)
        if broken is not None:
            raise UnhealthyError(
                f"{broken.stage} cannot load {broken.model}", why=broken.why, code="load_failed",
                next=f"correct the spec and run up again, or disagctl down {where.name} -y",
            )  # fmt: skip
        if time.monotonic() > deadline:
            raise WaitTimeout(
                f"{where.name} is not ready after {wait_s:g} s",
                why="it goes on starting",
                next=f"disagctl status {where.name} -w",
            )
        time.sleep(poll_s)


def _refuse(trouble: TroubleView, name: str) -> None:
    """Raise when a machine cannot be had, with the exit code that goes with why."""
    what, tried = f"no machine for {trouble.wish}", "; ".join(trouble.tried)
    why = trouble.why + (f"; tried {tried}" if tried else "")
    if trouble.kind in {"credentials", "quota"}:
        raise CredentialsError(what, why=why, next="disagctl doctor shows what works here", code=trouble.kind)
    if trouble.kind in {"no_capacity", "impossible"}:
        raise InfeasibleError(
            what, why=why, next="name more infra or accelerators in the spec, or try later", code=trouble.kind
        )
    if trouble.kind == "over_budget":
        raise OverBudgetError(what, why=why, next="raise the budget")
    if trouble.given_up:
        raise UnhealthyError(what, why=why, next=f"disagctl logs {name}", code="launch_failed")


@contextmanager
def locked(where: ServicePaths) -> Iterator[None]:
    """One up or down at a time for a service."""
    locks = where.root.parent.parent / "locks"
    locks.mkdir(mode=0o700, exist_ok=True)
    with (locks / f"{where.name}.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as err:
            raise UsageError(
                f"another up or down of {where.name} is at work", next="wait for it to end", code="busy"
            ) from err
        yield


def last_line(path: Path) -> str:
    """Of a log; nothing when there is none."""
    try:
        lines = path.read_text(errors="replace").strip().splitlines()
    except OSError:
        return ""
    return lines[-1][:300] if lines else ""
