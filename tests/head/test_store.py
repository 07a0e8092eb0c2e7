"""The store: group commit, idempotency, a full disk, and the first ending that stands."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from msgspec import structs

from disagctl.errors import OverBudgetError
from disagctl.store import Store, StoreFull, finish_item, insert_items, next_incarnation, put_node, reserve_node
from disagctl.store.changes import Write
from disagctl.store.offline import open_nodes
from disagctl.store.rows import ItemRow, NodeRow, signed, unsigned


def item(number: int, job: str = "") -> ItemRow:
    name = job or f"img_x_{number}"
    return ItemRow(name, name, 0, "image", "m", b"{}", number, None, 0, None, 1.0)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    made = Store(tmp_path / "ledger.db")
    yield made
    await asyncio.to_thread(made.close)


async def test_what_was_written_is_there_for_the_next_one(tmp_path: Path) -> None:
    first = Store(tmp_path / "ledger.db")
    await asyncio.gather(*(first.write(insert_items([item(i)], None)) for i in range(100)))
    await asyncio.to_thread(first.close)
    second = Store(tmp_path / "ledger.db")
    assert second.read("SELECT COUNT(*) FROM items WHERE state='open'") == [(100,)]
    assert [await second.write(next_incarnation) for _ in range(2)] == [1, 2]
    await asyncio.to_thread(second.close)


async def test_nodes_of_an_earlier_version_are_read(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "ledger.db") as old:
        old.execute(
            "CREATE TABLE nodes (id TEXT PRIMARY KEY, provider TEXT NOT NULL, offer TEXT NOT NULL, usd_per_hour REAL NOT NULL,"
            " token_hash TEXT NOT NULL, public_key TEXT, state TEXT NOT NULL, created_at REAL NOT NULL, pid INTEGER,"
            " pid_created REAL, closed_at REAL)"
        )
        old.execute("INSERT INTO nodes VALUES ('n1', 'local', 'local', 0, 'x', NULL, 'up', 1, 2, 3, NULL)")
    old.close()
    for _ in range(2):
        store = Store(tmp_path / "ledger.db")
        await asyncio.to_thread(store.close)
    (row,) = open_nodes(tmp_path / "ledger.db")
    assert (row.id, row.pid, row.wish, row.intent, row.billed_from) == ("n1", 2, "local", "", None)


async def test_the_budget_is_counted_where_the_row_is_inserted(store: Store) -> None:
    def node(name: str, usd: float) -> NodeRow:
        return NodeRow(name, "sky", "o", usd, "", None, "requested", 1.0, reserved=usd, billed_from=0.0)

    await store.write(reserve_node(node("n1", 3.0), 5.0, None))
    tried = await asyncio.gather(
        *(store.write(reserve_node(node(f"n{i}", 1.5), 5.0, None)) for i in (2, 3)), return_exceptions=True
    )
    assert [type(one) for one in tried] == [type(None), OverBudgetError]
    closed = node("n1", 3.0)
    closed.state, closed.closed_at = "gone", 3600.0
    await store.write(put_node(closed))
    await store.write(reserve_node(node("n4", 3.0), 5.0, 3.5))
    with pytest.raises(OverBudgetError, match=r"\$3.00 are spent"):
        await store.write(reserve_node(node("n5", 0.1), None, 3.0))


async def test_one_key_one_job(store: Store) -> None:
    assert await store.write(insert_items([item(1)], ("key", "print"))) is None
    assert await store.write(insert_items([item(2)], ("key", "other"))) == ("img_x_1", "print")
    assert store.read("SELECT id FROM items") == [("img_x_1",)]


async def test_the_first_ending_stands(store: Store) -> None:
    row = item(1)
    await store.write(insert_items([row], None))
    row.state, row.checksum = "succeeded", signed((1 << 64) - 5)
    await store.write(finish_item(row))
    row.state = "failed"
    await store.write(finish_item(row))
    (found,) = store.read("SELECT state, checksum FROM items")
    assert (found[0], unsigned(found[1])) == ("succeeded", (1 << 64) - 5)


async def test_many_rows_at_once_are_as_if_one_by_one(store: Store) -> None:
    rows = [item(i) for i in range(200)]
    used = ("key", "print")
    answers = await asyncio.gather(
        *(
            store.write(insert_items([row], used if row.idx == 0 and i in {50, 150} else None))
            for i, row in enumerate(rows)
        )
    )
    assert [i for i, answer in enumerate(answers) if answer] == [150]
    for row in rows:
        row.state, row.finished_at = "succeeded", 2.0
    again = [structs.replace(row, state="failed") for row in rows[:3]]
    await asyncio.gather(*(store.write(finish_item(row)) for row in [*rows, *again]))
    assert store.read("SELECT state, COUNT(*) FROM items GROUP BY state") == [("succeeded", 199)]


async def test_a_full_disk_refuses_and_recovers(store: Store) -> None:
    def limit(pages: int) -> object:
        return lambda db: db.execute(f"PRAGMA max_page_count={pages}").fetchone()

    big = item(1)
    big.params = b'{"p": "' + b"x" * 1_000_000 + b'"}'
    await store.write(limit(40))  # type: ignore[arg-type]
    with pytest.raises(StoreFull):
        await store.write(insert_items([big], None))
    assert store.read("SELECT COUNT(*) FROM items") == [(0,)]
    await store.write(limit(1 << 30))  # type: ignore[arg-type]
    await store.write(insert_items([big], None))
    assert store.read("SELECT COUNT(*) FROM items") == [(1,)]


async def test_a_change_that_refuses_takes_nobody_down(store: Store) -> None:
    def refuse(_db: sqlite3.Connection) -> None:
        raise ValueError("no")

    writes: list[Write] = [insert_items([item(1)], None), refuse, insert_items([item(2)], None)]
    results: list[object] = await asyncio.gather(*map(store.write, writes), return_exceptions=True)
    assert results[0] is results[2] is None
    assert isinstance(results[1], ValueError)
    assert store.read("SELECT COUNT(*) FROM items") == [(2,)]
