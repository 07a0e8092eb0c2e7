"""Everything that is ever written to the store, as functions for :meth:`disagctl.store.Store.write`."""

import sqlite3
from collections.abc import Callable
from typing import Any, Final

from disagctl.store.rows import EventRow, ItemRow, NodeRow

KEEP_EVENTS: Final = 5_000

Write = Callable[[sqlite3.Connection], Any]


def set_meta(key: str, value: str) -> Write:
    """Set one value of the meta table."""
    return lambda db: db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))


def next_incarnation(db: sqlite3.Connection) -> int:
    """Count one more start of the head: fences everything the earlier ones gave out."""
    row = db.execute("SELECT value FROM meta WHERE key='incarnation'").fetchone()
    number = int(row[0]) + 1 if row else 1
    db.execute("INSERT OR REPLACE INTO meta VALUES ('incarnation', ?)", (str(number),))
    return number


def insert_items(items: list[ItemRow], key: tuple[str, str] | None) -> Write:
    """Accept a job. With an idempotency ``key`` (key, fingerprint) used before: its job's id and fingerprint instead."""

    def change(db: sqlite3.Connection) -> tuple[str, str] | None:
        if key is not None:
            row = db.execute("SELECT job, fingerprint FROM keys WHERE key=?", (key[0],)).fetchone()
            if row is not None:
                return str(row[0]), str(row[1])
            db.execute("INSERT INTO keys VALUES (?, ?, ?, ?)", (*key, items[0].job, items[0].created_at))
        db.executemany(
            "INSERT INTO items (id, job, idx, kind, model, params, seed, upload, priority, deadline_s, created_at, state)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'open')",
            [item.insert_values() for item in items],
        )
        return None

    return change


def finish_item(row: ItemRow) -> Write:
    """Record how an item ended. Only an open one changes: the first ending stands. True if this was it."""

    def change(db: sqlite3.Connection) -> bool:
        return (
            db.execute(
                "UPDATE items SET state=?, finished_at=?, attempts=?, code=?, message=?, param=?, evidence=?, mime=?, nbytes=?,"
                " checksum=?, data=?, file=? WHERE id=? AND state='open'",
                row.finish_values(),
            ).rowcount
            == 1
        )

    return change


def mark_fetched(item: str) -> Write:
    """Somebody has the result: ``down`` need not save it."""
    return lambda db: db.execute("UPDATE items SET fetched=1 WHERE id=?", (item,))


def delete_job(job: str) -> Write:
    """Forget a job."""

    def change(db: sqlite3.Connection) -> None:
        db.execute("DELETE FROM items WHERE job=?", (job,))
        db.execute("DELETE FROM keys WHERE job=?", (job,))

    return change


def put_node(node: NodeRow) -> Write:
    """Insert or replace a node."""
    return lambda db: db.execute("INSERT OR REPLACE INTO nodes VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", node.values())


def add_event(event: EventRow) -> Write:
    """Append to the event log, which keeps the last few thousand."""

    def change(db: sqlite3.Connection) -> int:
        cursor = db.execute("INSERT INTO events (at, kind, why) VALUES (?, ?, ?)", (event.at, event.kind, event.why))
        seq = int(cursor.lastrowid or 0)
        db.execute("DELETE FROM events WHERE seq <= ?", (seq - KEEP_EVENTS,))
        return seq

    return change


def add_token(token_hash: str, created_at: float) -> Write:
    """Remember a token's hash."""
    return lambda db: db.execute("INSERT OR IGNORE INTO tokens VALUES (?, ?)", (token_hash, created_at))
