"""Reading a service's store without its head. A missing or damaged store reads as empty: teardown must go on."""

import sqlite3
from pathlib import Path
from typing import Any

from disagctl.store.rows import NODE_COLUMNS, NodeRow


def nodes(store: Path) -> list[NodeRow]:
    """Every machine there ever was, the oldest first."""
    rows = _query(store, f"SELECT {NODE_COLUMNS} FROM nodes ORDER BY created_at")  # noqa: S608  # our own columns
    return [NodeRow(*row) for row in rows]


def open_nodes(store: Path) -> list[NodeRow]:
    """The machines that are not known to be gone."""
    return [row for row in nodes(store) if row.state != "gone"]


def unfetched(store: Path) -> list[tuple[str, str, str | None, bytes | None]]:
    """(item, mime, file, data) of the results that nobody has fetched."""
    sql = "SELECT id, mime, file, data FROM items WHERE state='succeeded' AND fetched=0 AND nbytes > 0"
    return [(row[0], row[1], row[2], row[3]) for row in _query(store, sql)]


def outcomes(store: Path) -> dict[str, int]:
    """Number of requests by state."""
    return {row[0]: row[1] for row in _query(store, "SELECT state, COUNT(*) FROM items GROUP BY state")}


def finished_requests(store: Path) -> int:
    """How many pictures and videos were made."""
    return int(outcomes(store).get("succeeded", 0))


def last_events(store: Path, count: int) -> list[tuple[int, float, str, str]]:
    """(seq, at, kind, why), oldest first."""
    return _query(store, "SELECT seq, at, kind, why FROM events ORDER BY seq DESC LIMIT ?", (count,))[::-1]


def _query(store: Path, sql: str, args: tuple[Any, ...] = ()) -> list[Any]:
    if not store.exists():
        return []
    try:
        db = sqlite3.connect(f"file:{store}?mode=ro", uri=True, timeout=5.0)
        try:
            return db.execute(sql, args).fetchall()
        finally:
            db.close()
    except sqlite3.Error:
        return []
