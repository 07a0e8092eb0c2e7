"""Whether machines reach each other: each agent listens on a port that says nothing, and knocks on those of the others.

Nothing is sent or read: that the connection comes about is the answer, and how long it took the distance.
"""

import queue
import socket
import threading
import time
from collections.abc import Iterable
from typing import Final

from stages.protocol import Neighbour, Reached

KNOCK_S: Final = 3.0
BACKLOG: Final = 64
MAX_KNOCKS: Final = 1_000  # answers that wait to be told


class Doorbell:
    """``endpoint`` for others; ``knock`` on theirs, and ``answers`` when they are there. One thread knocks."""

    def __init__(self, host: str) -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listener = socket.create_server((host, 0), family=family, backlog=BACKLOG)
        self._listener.setblocking(False)
        self.endpoint = f"{host}|{self._listener.getsockname()[1]}"
        self._asked: queue.Queue[Neighbour | None] = queue.Queue(MAX_KNOCKS)
        self._answers: queue.Queue[Reached] = queue.Queue(MAX_KNOCKS)
        threading.Thread(target=self._run, name="reach", daemon=True).start()

    def knock(self, neighbours: Iterable[Neighbour]) -> None:
        """Try each; those beyond the bound are not tried."""
        for neighbour in neighbours:
            if not self._asked.full():
                self._asked.put_nowait(neighbour)

    def answers(self) -> list[Reached]:
        """What was found since the last call. Lets those in, and out again, who knock here."""
        while True:
            try:
                self._listener.accept()[0].close()
            except OSError:
                break
        found: list[Reached] = []
        while not self._answers.empty():
            found.append(self._answers.get_nowait())
        return found

    def close(self) -> None:
        """No more."""
        self._listener.close()
        if not self._asked.full():
            self._asked.put_nowait(None)

    def _run(self) -> None:
        while (neighbour := self._asked.get()) is not None:
            if not self._answers.full():
                self._answers.put_nowait(Reached(neighbour.node, knock(neighbour.endpoint)))


def knock(endpoint: str) -> float | None:
    """Milliseconds until ``host|port`` let us in; None when it does not."""
    host, _, port = endpoint.partition("|")
    begin = time.monotonic()
    try:
        with socket.create_connection((host, int(port)), KNOCK_S):
            return (time.monotonic() - begin) * 1000
    except (OSError, ValueError):
        return None
