"""The event feed: what the head did and saw, and why. In memory for the live view, in the store for later."""

import asyncio
import logging
from collections import deque
from typing import Final

from disagctl import clock
from disagctl.store import Store, StoreFull, add_event
from disagctl.store.rows import EventRow
from disagctl.views import EventView

log = logging.getLogger(__name__)

KEEP: Final = 1_000


class EventLog:
    """Append-only, bounded. Lives on the event loop."""

    def __init__(self, store: Store) -> None:
        self._store = store
        newest = store.read("SELECT seq, at, kind, why FROM events ORDER BY seq DESC LIMIT 200")
        self._events = deque((EventView(at, kind, why, seq) for seq, at, kind, why in reversed(newest)), KEEP)
        self._seq = self._events[-1].seq if self._events else 0
        self._tasks: set[asyncio.Task[None]] = set()

    def add(self, kind: str, why: str) -> None:
        """Say what happened. Never blocks and never fails: an event is not worth a request."""
        self._seq += 1
        event = EventView(clock.wall_s(), kind, why, self._seq)
        self._events.append(event)
        log.info("%s: %s", kind, why)
        if len(self._tasks) < KEEP:
            task = asyncio.ensure_future(self._save(event))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def after(self, seq: int) -> list[EventView]:
        """Events newer than ``seq``, oldest first."""
        return [event for event in self._events if event.seq > seq]

    def last(self, count: int) -> list[EventView]:
        """The newest, oldest first."""
        return list(self._events)[-count:]

    async def _save(self, event: EventView) -> None:
        try:
            await self._store.write(add_event(EventRow(event.at, event.kind, event.why)))
        except StoreFull as err:
            log.warning("event not stored: %s", err)
