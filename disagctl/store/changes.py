"""Everything that is ever written to the store, as functions for :meth:`disagctl.store.Store.write`."""

import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, Final

from disagctl.errors import OverBudgetError
from disagctl.store.rows import NODE_COLUMNS, EventRow, ItemRow, NodeRow

KEEP_EVENTS: Final = 5_000
MAX_ROWS: Final = 64  # of one statement
FINISH: Final = (
    "UPDATE items SET state=column1, finished_at=column2, attempts=column3, code=column4, message=column5, param=column6,"
    " evidence=column7, mime=column8, nbytes=column9, checksum=column10, data=column11, file=column12"
    " FROM (VALUES {}) WHERE id=column13 AND items.state='open'"
)
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


class Rows(ABC):
    """A change that is one row of a statement: many of them at once cost little more than one."""

    one: bool = True  # whether it is a single statement, which needs no transaction around it

    @abstractmethod
    def __call__(self, db: sqlite3.Connection) -> Any:
        """This row alone."""

    @classmethod
    @abstractmethod
    def all_of(cls, db: sqlite3.Connection, changes: list[Any]) -> list[Any]:
        """Several of them, in order; what each would have returned."""


def chunks(count: int) -> Iterator[tuple[int, int]]:
    """Ranges of ``count`` rows whose lengths are powers of two: few statements, and few different ones."""
    start, size = 0, MAX_ROWS
    while start < count:
        while size > count - start:
            size //= 2
        yield start, start + size
        start += size


class InsertItems(Rows):
    """Accept a job. With an idempotency ``key`` (key, fingerprint) used before: its job's id and fingerprint instead."""

    def __init__(self, items: list[ItemRow], key: tuple[str, str] | None) -> None:
        self.items, self.key = items, key
        self.one = key is None and len(items) == 1

    def __call__(self, db: sqlite3.Connection) -> tuple[str, str] | None:
        """Look up the key, then insert."""
        if self.key is not None:
            row = db.execute("SELECT job, fingerprint FROM keys WHERE key=?", (self.key[0],)).fetchone()
            if row is not None:
                return str(row[0]), str(row[1])
            db.execute("INSERT INTO keys VALUES (?, ?, ?, ?)", (*self.key, self.items[0].job, self.items[0].created_at))
        _insert(db, self.items)
        return None

    @classmethod
    def all_of(cls, db: sqlite3.Connection, changes: list["InsertItems"]) -> list[Any]:
        """Those without a key in one go; they depend on nothing."""
        _insert(db, [item for change in changes if change.key is None for item in change.items])
        return [None if change.key is None else change(db) for change in changes]


insert_items = InsertItems


def _insert(db: sqlite3.Connection, items: list[ItemRow]) -> None:
    for start, end in chunks(len(items)):
        values = [value for item in items[start:end] for value in item.insert_values()]
        db.execute(_insert_sql(end - start), values)


@cache
def _insert_sql(rows: int) -> str:
    columns = "id, job, idx, kind, model, params, seed, upload, priority, deadline_s, created_at, state"
    return f"INSERT INTO items ({columns}) VALUES " + _marks("(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'open')", rows)  # noqa: S608


class FinishItem(Rows):
    """Record how an item ended. Only an open one changes: the first ending stands."""

    def __init__(self, row: ItemRow) -> None:
        self.row = row

    def __call__(self, db: sqlite3.Connection) -> None:
        """This ending alone."""
        db.execute(_finish_sql(1), self.row.finish_values())

    @classmethod
    def all_of(cls, db: sqlite3.Connection, changes: list["FinishItem"]) -> list[Any]:
        """In one go, unless one item ended twice: then in order."""
        rows = [change.row for change in changes]
        if len({row.id for row in rows}) < len(rows):
            for change in changes:
                change(db)
        else:
            for start, end in chunks(len(rows)):
                values = [value for row in rows[start:end] for value in row.finish_values()]
                db.execute(_finish_sql(end - start), values)
        return [None] * len(rows)


finish_item = FinishItem


@cache
def _finish_sql(rows: int) -> str:
    return FINISH.format(_marks("(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", rows))


def _marks(row: str, rows: int) -> str:
    return ", ".join([row] * rows)


def mark_fetched(item: str) -> Write:
    """Somebody has the result: ``down`` need not save it."""
    return lambda db: db.execute("UPDATE items SET fetched=1 WHERE id=?", (item,))


def delete_job(job: str) -> Write:
    """Forget a job."""

    def change(db: sqlite3.Connection) -> None:
        db.execute("DELETE FROM items WHERE id=? OR (job=? AND idx>0)", (job, job))
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
