"""The durable part of a service: one SQLite file in WAL mode, written by one thread in group commits.

A write is a function on the connection; all writes waiting at the same time share one transaction and one fsync, and
whoever asked hears of it after that. That is what makes ``accepted means kept`` cheap. Neighbours of a kind go as rows of
one statement (:class:`Rows`): between statements the thread has to win back the interpreter's lock. Reads go through a
second connection.
"""

import asyncio
import logging
import queue
import sqlite3
import threading
from collections.abc import Callable
from itertools import groupby
from pathlib import Path
from typing import Any, Final

from disagctl.store.changes import Rows, Write

log = logging.getLogger(__name__)

SCHEMA_VERSION: Final = 2
MAX_PENDING: Final = 20_000
MAX_GROUP: Final = 1_000

SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS items (
  id TEXT PRIMARY KEY, job TEXT NOT NULL, idx INTEGER NOT NULL, kind TEXT NOT NULL, model TEXT NOT NULL,
  params BLOB NOT NULL, seed INTEGER NOT NULL, upload TEXT, priority INTEGER NOT NULL, deadline_s REAL,
  created_at REAL NOT NULL, state TEXT NOT NULL, finished_at REAL, attempts INTEGER NOT NULL DEFAULT 0,
  code TEXT, message TEXT, param TEXT, evidence BLOB,
  mime TEXT, nbytes INTEGER NOT NULL DEFAULT 0, checksum INTEGER, data BLOB, file TEXT,
  fetched INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX IF NOT EXISTS items_more ON items (job, idx) WHERE idx > 0;
CREATE INDEX IF NOT EXISTS items_open ON items (state) WHERE state = 'open';
CREATE INDEX IF NOT EXISTS items_kind ON items (kind, idx, created_at, job);
CREATE TABLE IF NOT EXISTS keys (key TEXT PRIMARY KEY, fingerprint TEXT NOT NULL, job TEXT NOT NULL, created_at REAL NOT NULL);
CREATE TABLE IF NOT EXISTS nodes (
  id TEXT PRIMARY KEY, provider TEXT NOT NULL, offer TEXT NOT NULL, usd_per_hour REAL NOT NULL, token_hash TEXT NOT NULL,
  public_key TEXT, state TEXT NOT NULL, created_at REAL NOT NULL, pid INTEGER, pid_created REAL, closed_at REAL
);
CREATE TABLE IF NOT EXISTS events (
  seq INTEGER PRIMARY KEY AUTOINCREMENT, at REAL NOT NULL, kind TEXT NOT NULL, why TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS tokens (hash TEXT PRIMARY KEY, created_at REAL NOT NULL);
"""


ADDED_TO_NODES: Final = (  # since version 1
    "intent TEXT NOT NULL DEFAULT ''", "wish TEXT NOT NULL DEFAULT 'local'", "offers BLOB NOT NULL DEFAULT '[]'",
    "parts BLOB NOT NULL DEFAULT '{}'", "reserved REAL NOT NULL DEFAULT 0", "provider_id TEXT NOT NULL DEFAULT ''",
    "request_id TEXT NOT NULL DEFAULT ''", "billed_from REAL", "why TEXT NOT NULL DEFAULT ''",
)  # fmt: skip

Told = Callable[[Any], None]
"""Called on the event loop with what the write returned, or with the exception that it or the commit raised."""

Item = tuple[Write, Told, asyncio.AbstractEventLoop]


class StoreFull(Exception):
    """The disk is full, or more writes wait than the bound allows: nothing was written."""


def connect(path: Path) -> sqlite3.Connection:
    """Open the file with the settings that every connection has."""
    db = sqlite3.connect(path, check_same_thread=False, isolation_level=None, timeout=10.0, cached_statements=256)
    db.execute("PRAGMA journal_mode=WAL")
    db.execute("PRAGMA synchronous=FULL")
    db.execute("PRAGMA foreign_keys=ON")
    return db


def upgrade(db: sqlite3.Connection) -> None:
    """Add the columns that an earlier version did not have."""
    known = {row[1] for row in db.execute("PRAGMA table_info(nodes)")}
    for column in ADDED_TO_NODES:
        if column.partition(" ")[0] not in known:
            db.execute(f"ALTER TABLE nodes ADD COLUMN {column}")


class Store:
    """Open in the head's process only. ``write`` is awaited on the event loop."""

    def __init__(self, path: Path) -> None:
        path.touch(mode=0o600, exist_ok=True)
        self._path = path
        self._db = connect(path)
        self._db.executescript(SCHEMA)
        upgrade(self._db)
        self._db.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
        self._read = connect(path)
        self._queue: queue.SimpleQueue[list[Item] | None] = queue.SimpleQueue()
        self._pending = 0  # on the event loop's thread only
        self._turn: list[Item] = []  # of this turn of the loop: handed over together, for that wakes the thread
        self._thread = threading.Thread(target=self._run, name="store", daemon=True)
        self._thread.start()

    async def write(self, change: Write) -> Any:
        """Apply a change; returns its result once it is on disk. Raises StoreFull or what the change raised."""
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

        def told(result: Any) -> None:
            if future.done():
                return
            if isinstance(result, Exception):
                future.set_exception(result)
            else:
                future.set_result(result)

        self.put(change, told)
        return await future

    def put(self, change: Write, told: Told) -> None:
        """Apply a change, and say on this event loop what came of it once it is on disk."""
        loop = asyncio.get_running_loop()
        if self._pending >= MAX_PENDING:
            loop.call_soon(told, StoreFull("too many writes are waiting"))
            return
        self._pending += 1
        self._turn.append((change, told, loop))
        if len(self._turn) == 1:
            loop.call_soon(self._hand_over)

    def _hand_over(self) -> None:
        if self._turn:
            turn, self._turn = self._turn, []
            self._queue.put(turn)

    def read(self, sql: str, args: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        """Query; call it from the event loop's thread only."""
        return self._read.execute(sql, args).fetchall()

    def close(self) -> None:
        """Finish what waits, then close."""
        self._hand_over()
        self._queue.put(None)
        self._thread.join(10.0)
        self._read.close()
        self._db.close()

    # --- the writing thread -----------------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            turn = self._queue.get()
            group: list[Item] = []
            while turn is not None:
                group += turn
                if len(group) >= MAX_GROUP or self._queue.empty():
                    break
                turn = self._queue.get_nowait()
            if group:
                self._commit(group)
            if turn is None:
                return

    def _commit(self, group: list[Item]) -> None:
        results = self._results([change for change, _, _ in group])
        by_loop: dict[asyncio.AbstractEventLoop, list[tuple[Told, Any]]] = {}
        for (_, told, loop), result in zip(group, results, strict=True):
            by_loop.setdefault(loop, []).append((told, result))
        for loop, pairs in by_loop.items():
            try:
                loop.call_soon_threadsafe(self._tell, pairs)
            except RuntimeError:
                continue  # the loop is closed: nobody waits any more

    def _results(self, changes: list[Write]) -> list[Any]:
        """Apply the changes in one transaction; what each returned, or the exception that it or the commit raised."""
        try:
            try:
                return self._transact(changes, lambda change: change(self._db), together=True)
            except sqlite3.Error:
                raise
            except Exception:  # noqa: BLE001  # boundary: one refuses (a conflict); find out which
                self._db.execute("ROLLBACK")
                return self._transact(changes, self._apply)
        except sqlite3.Error as err:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            return [StoreFull(str(err))] * len(changes)

    def _transact(self, changes: list[Write], apply: Callable[[Write], Any], *, together: bool = False) -> list[Any]:
        first = changes[0]
        if together and len(changes) == 1 and isinstance(first, Rows) and first.one:
            return [first(self._db)]
        self._db.execute("BEGIN IMMEDIATE")
        results: list[Any] = []
        for kind, group in groupby(changes, type):
            same = list(group)
            if together and len(same) > 1 and issubclass(kind, Rows):
                results += kind.all_of(self._db, same)
            else:
                results += map(apply, same)
        self._db.execute("COMMIT")
        return results

    def _apply(self, change: Write) -> Any:
        """Run one change in a savepoint: one that refuses must not take its group down."""
        self._db.execute("SAVEPOINT change")
        try:
            result = change(self._db)
        except sqlite3.Error:
            raise
        except Exception as err:  # noqa: BLE001  # boundary: it is the caller's error and goes back to the caller
            self._db.execute("ROLLBACK TO change")
            result = err
        self._db.execute("RELEASE change")
        return result

    def _tell(self, pairs: list[tuple[Told, Any]]) -> None:
        self._pending -= len(pairs)
        for told, result in pairs:
            try:
                told(result)
            except Exception:  # boundary: a defect of one must not keep the others waiting
                log.exception("a write is on disk, and whoever asked for it failed on hearing so")
