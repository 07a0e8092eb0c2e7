"""Calls that may never return, given up after a time that we choose.

A blocking call of a C library cannot be stopped. It runs on a thread of its own, and when it takes too long we go on
without it: the thread keeps what it needs (its slot is not used again) until the library lets it go.
"""

import queue
import threading
from collections.abc import Callable
from typing import Any, Final, TypeVar

from stages.transport.transfers import TransferError

MAX_STUCK: Final = 4  # calls given up and not back yet, after which no more are begun

T = TypeVar("T")


class Caller:
    """Runs one call at a time, from one thread, each with its deadline."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._stuck: list[threading.Thread] = []
        self._line: queue.SimpleQueue[Callable[[], None] | None] | None = None
        self._thread: threading.Thread | None = None

    def run(self, call: Callable[[], T], timeout_s: float) -> T:
        """The call's result; what it raises is raised. TransferError when ``timeout_s`` pass."""
        self._stuck = [thread for thread in self._stuck if thread.is_alive()]
        if len(self._stuck) >= MAX_STUCK:
            msg = f"{len(self._stuck)} earlier transfers hang"
            raise TransferError(msg)
        done = threading.Event()
        answer: list[Any] = []

        def work() -> None:
            try:
                answer.append(call())
            except BaseException as err:  # noqa: BLE001  # handed to the thread that waits
                answer.append(err)
            done.set()

        self._put(work)
        if not done.wait(max(0.0, timeout_s)):
            self._abandon()
            msg = "the deadline passed"
            raise TransferError(msg)
        if isinstance(answer[0], BaseException):
            raise answer[0]
        result: T = answer[0]
        return result

    def close(self) -> None:
        """End the thread, unless it hangs."""
        if self._line is not None:
            self._line.put(None)
            self._line = self._thread = None

    def _put(self, work: Callable[[], None]) -> None:
        if self._line is None:
            line: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()

            def loop() -> None:
                while (job := line.get()) is not None:
                    job()
                    del job  # it holds the slot that it wrote to

            self._line = line
            self._thread = threading.Thread(target=loop, name=self._name, daemon=True)
            self._thread.start()
        self._line.put(work)

    def _abandon(self) -> None:
        if self._thread is not None:
            self._stuck.append(self._thread)
        self.close()
