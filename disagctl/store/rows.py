"""Rows of the store as structs."""

from typing import Any

import msgspec

ITEM_COLUMNS = (
    "id, job, idx, kind, model, params, seed, upload, priority, deadline_s, created_at, state, finished_at, attempts,"
    " code, message, param, mime, nbytes, checksum, file"
)


class ItemRow(msgspec.Struct):
    """One picture or video. state: open | succeeded | failed | cancelled. ``params``: JSON without the seed."""

    id: str
    job: str
    idx: int
    kind: str
    model: str
    params: bytes
    seed: int
    upload: str | None
    priority: int
    deadline_s: float | None
    created_at: float
    state: str = "open"
    finished_at: float | None = None
    attempts: int = 0
    code: str | None = None
    message: str | None = None
    param: str | None = None
    mime: str | None = None
    nbytes: int = 0
    checksum: int | None = None  # as SQLite's signed 64 bits
    file: str | None = None
    data: bytes | None = None
    evidence: bytes | None = None

    def insert_values(self) -> tuple[Any, ...]:
        """Columns known at acceptance."""
        return (
            self.id, self.job, self.idx, self.kind, self.model, self.params, self.seed, self.upload, self.priority,
            self.deadline_s, self.created_at,
        )  # fmt: skip

    def finish_values(self) -> tuple[Any, ...]:
        """Columns of the ending, then the id."""
        return (
            self.state, self.finished_at, self.attempts, self.code, self.message, self.param, self.evidence, self.mime,
            self.nbytes, self.checksum, self.data, self.file, self.id,
        )  # fmt: skip


class NodeRow(msgspec.Struct):
    """One machine. state: requested | launching | up | draining | releasing | lost | gone.

    ``offers``: JSON of the offers to be tried, in order; ``offer`` and ``usd_per_hour``: the one it came from, before that is
    known the first and the dearest. ``reserved``: USD an hour that the budget keeps for it until it is gone. ``parts``: JSON,
    USD an hour of each role it was rented for. ``billed_from``: since when it costs, None while (or because) it never was.
    """

    id: str
    provider: str
    offer: str
    usd_per_hour: float
    token_hash: str
    public_key: str | None
    state: str
    created_at: float
    pid: int | None = None
    pid_created: float | None = None
    closed_at: float | None = None
    intent: str = ""
    wish: str = ""
    offers: bytes = b"[]"
    parts: bytes = b"{}"
    reserved: float = 0.0
    provider_id: str = ""
    request_id: str = ""
    billed_from: float | None = None
    why: str = ""

    def values(self) -> tuple[Any, ...]:
        """All columns."""
        return tuple(getattr(self, name) for name in self.__struct_fields__)

    def usd(self, now: float) -> float:
        """What it has cost by then (wall clock)."""
        if self.billed_from is None:
            return 0.0
        return self.usd_per_hour * max(0.0, (self.closed_at or now) - self.billed_from) / 3600


NODE_COLUMNS = ", ".join(NodeRow.__struct_fields__)


class EventRow(msgspec.Struct):
    """Something that happened and why."""

    at: float
    kind: str
    why: str


def signed(checksum: int) -> int:
    """SQLite has signed integers: fold an unsigned 64-bit one."""
    return checksum - (1 << 64) if checksum >= 1 << 63 else checksum


def unsigned(checksum: int) -> int:
    """The inverse of :func:`signed`."""
    return checksum + (1 << 64) if checksum < 0 else checksum
