"""The store: group commit, idempotency, a full disk, and the first ending that stands."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from disagctl.store import Store, StoreFull, finish_item, insert_items, next_incarnation
from disagctl.store.rows import ItemRow, signed, unsigned


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


async def test_one_key_one_job(store: Store) -> None:
    assert await store.write(insert_items([item(1)], ("key", "print"))) is None
    assert await store.write(insert_items([item(2)], ("key", "other"))) == ("img_x_1", "print")
    assert store.read("SELECT id FROM items") == [("img_x_1",)]


async def test_the_first_ending_stands(store: Store) -> None:
    row = item(1)
    await store.write(insert_items([row], None))
    row.state, row.checksum = "succeeded", signed((1 << 64) - 5)
    assert await store.write(finish_item(row)) is True
    row.state = "failed"
    assert await store.write(finish_item(row)) is False
    (found,) = store.read("SELECT state, checksum FROM items")
    assert (found[0], unsigned(found[1])) == ("succeeded", (1 << 64) - 5)


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

    writes = (insert_items([item(1)], None), refuse, insert_items([item(2)], None))
    results: list[object] = await asyncio.gather(*map(store.write, writes), return_exceptions=True)
    assert results[0] is results[2] is None
    assert isinstance(results[1], ValueError)
    assert store.read("SELECT COUNT(*) FROM items") == [(2,)]
