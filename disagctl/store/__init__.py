"""The durable part of a service: a SQLite file, its one writer, and everything that is ever written to it."""

from disagctl.store.changes import (
    add_event,
    add_token,
    delete_job,
    finish_item,
    insert_items,
    mark_fetched,
    next_incarnation,
    put_node,
    reserve_node,
    set_meta,
)
from disagctl.store.writer import Store, StoreFull

__all__ = [
    "Store",
    "StoreFull",
    "add_event",
    "add_token",
    "delete_job",
    "finish_item",
    "insert_items",
    "mark_fetched",
    "next_incarnation",
    "put_node",
    "reserve_node",
    "set_meta",
]
