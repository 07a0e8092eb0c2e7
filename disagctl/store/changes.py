"""Everything that is ever written to the store, as functions for :meth:`disagctl.store.Store.write`."""

import sqlite3
from collections.abc import Callable
from typing import Any, Final

from disagctl.errors import OverBudgetError
from disagctl.store.rows import NODE_COLUMNS, EventRow, ItemRow, NodeRow

KEEP_EVENTS: Final = 5_000
SPENT: Final = (
    "SELECT COALESCE(SUM(usd_per_hour * MAX(0, COALESCE(closed_at, ?) - billed_from) / 3600), 0) FROM nodes"
    " WHERE billed_from IS NOT NULL"
)

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
    values = node.values()  # as they are now: the row goes on changing
    marks = ", ".join("?" * len(values))
    return lambda db: db.execute(f"INSERT OR REPLACE INTO nodes ({NODE_COLUMNS}) VALUES ({marks})", values)  # noqa: S608


def reserve_node(node: NodeRow, max_usd_per_hour: float | None, max_usd_total: float | None) -> Write:
    """Insert a node if the budget has room for what it reserves: counted and inserted in one transaction.

    ``max_usd_total``: not another one once that much has been spent. Raises OverBudgetError.
    """
    insert = put_node(node)

    def change(db: sqlite3.Connection) -> None:
        held = db.execute("SELECT COALESCE(SUM(reserved), 0) FROM nodes WHERE state != 'gone'").fetchone()[0]
        if max_usd_per_hour is not None and held + node.reserved > max_usd_per_hour * (1 + 1e-9):
            raise OverBudgetError(
                f"{node.offer} would exceed the budget", code="over_budget",
                why=f"${held:.2f}/h is taken, it may cost ${node.reserved:.2f}/h, the wall is ${max_usd_per_hour:.2f}/h",
                next="raise budget.max_usd_per_hour, or lower the workload",
            )  # fmt: skip
        spent = db.execute(SPENT, (node.created_at,)).fetchone()[0]
        if max_usd_total is not None and spent >= max_usd_total:
            raise OverBudgetError(
                f"${spent:.2f} are spent", why=f"budget.max_usd_total is ${max_usd_total:.2f}",
                next="raise budget.max_usd_total, or take the service down", code="over_budget",
            )  # fmt: skip
        insert(db)

    return change


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
