"""Waiting for a request, showing how far it is; and what its end means for the exit code."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from disagctl.cli.client import Head
from disagctl.cli.output import console, is_terminal, say
from disagctl.errors import RequestCancelled, RequestFailed, UnhealthyError, WaitTimeout
from disagctl.ui.job import progress_line
from disagctl.views import JobView

POLL_S: Final = 10.0
HEAD_BACK_S: Final = 120.0  # a head that restarts brings its requests back: wait this long for it
FINISHED: Final = frozenset({"succeeded", "failed", "cancelled"})
Show = Callable[[JobView], None]


def follow(head: Head, job: JobView) -> JobView:
    """The request once it is finished. Shows progress on stderr while waiting."""
    with _display(job) as show:
        show(job)
        gone_at: float | None = None
        while job.status not in FINISHED:
            try:
                job = head.job(job.id, wait_s=POLL_S, version=job.version)
                gone_at = None
            except UnhealthyError:
                gone_at = gone_at or time.monotonic()
                if time.monotonic() - gone_at > HEAD_BACK_S:
                    raise
                time.sleep(1.0)
            show(job)
    return job


def check_outcome(job: JobView) -> None:
    """Raise what the exit code should say of a request that has no result."""
    if job.status == "succeeded":
        return
    if job.status == "cancelled":
        raise RequestCancelled(f"request {job.id} was cancelled")
    if job.status == "failed":
        code = job.error.code if job.error else None
        raise RequestFailed(f"request {job.id} failed", why=job.error.message if job.error else "", code=code)
    raise WaitTimeout(
        f"request {job.id} is {job.status}", next=f"disagctl get {job.id} -w waits for it", code="unfinished"
    )


@contextmanager
def _display(job: JobView) -> Iterator[Show]:
    if is_terminal(err=True):
        with _bar() as show:
            yield show
    else:
        yield _Lines().show


@contextmanager
def _bar() -> Iterator[Show]:
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=32),
        TextColumn("{task.percentage:>3.0f}%"),
    )
    with Progress(*columns, TimeElapsedColumn(), console=console(err=True), transient=True) as progress:
        task = progress.add_task("queued", total=100)
        yield lambda job: progress.update(task, completed=job.progress, description=f"{progress_line(job):<22}")


class _Lines:
    """Without a terminal: a line when the stage changes, and now and then in between."""

    def __init__(self) -> None:
        self._said: tuple[str, str | None] | None = None
        self._at_s = 0.0

    def show(self, job: JobView) -> None:
        now = time.monotonic()
        state = (job.status, job.stage)
        if state != self._said or now - self._at_s >= POLL_S:
            self._said, self._at_s = state, now
            say(f"{job.id}: {progress_line(job)} ({job.progress}%)")
