"""What the front desk tells whom, and when: rows, dispatch and answers in their order."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from disagctl.artifacts import ArtifactStore
from disagctl.desk import FrontDesk
from disagctl.events import EventLog
from disagctl.service import ModelInfo, NewJob, StorageFull
from disagctl.store import Store, StoreFull
from planner.domain import TaskRef
from stages import protocol as wire
from stages.models.base import ModelCard
from tests.engine.bench import ENCODE, WORKER, Bench

CARD = ModelCard(("encode",), "image", "text2image")
JOB = NewJob("image", "m", {"prompt": "x"}, [7])
KEYED = NewJob("image", "m", {"prompt": "x"}, [7], idempotency_key="k", fingerprint="f")

Put = tuple[Any, Callable[[Any], None]]


class SlowStore(Store):
    """Writes nothing before it is told to; ``full``: fails instead."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.waiting: list[Put] = []

    def put(self, change: Any, told: Callable[[Any], None]) -> None:
        self.waiting.append((change, told))

    async def go_on(self, *, full: bool = False) -> None:
        waiting, self.waiting = self.waiting, []
        for change, told in waiting:
            if full:
                told(StoreFull("no room"))
            else:
                super().put(change, told)
        await asyncio.sleep(0)

    async def settle(self) -> None:
        """Until what was let go on is on disk."""
        done = asyncio.Event()
        super().put(lambda _db: None, lambda _result: done.set())
        await done.wait()


class Served:
    """A desk in front of an engine with one worker that is ready."""

    def __init__(self, folder: Path) -> None:
        self.bench = Bench(wanted={ENCODE: 1})
        self.bench.up()
        self.store = SlowStore(folder / "state.db")
        for name in ("artifacts", "inputs"):
            (folder / name).mkdir()
        artifacts = ArtifactStore(folder / "artifacts", folder / "inputs")
        engine = self.bench.engine
        models = [ModelInfo("m", "synthetic", CARD, 0.0)]
        self.desk = FrontDesk("s", models, self.store, artifacts, engine, EventLog(self.store), 10, ("", ""))
        engine.desk = self.desk

    def tasks(self) -> list[wire.Task]:
        return [message.task for message in self.bench.sent[WORKER] if isinstance(message, wire.Assign)]

    def done(self, ref: TaskRef) -> None:
        """The worker has made the picture."""
        artifact = wire.Artifact("image/png", 3, 0, data=b"png")
        self.bench.hear(WORKER, wire.Done(ref, artifact=artifact, seconds=0.1))


@asynccontextmanager
async def served(folder: Path) -> AsyncIterator[Served]:
    made = Served(folder)
    try:
        yield made
    finally:
        made.store.close()


async def turns() -> None:
    for _ in range(4):
        await asyncio.sleep(0)


def test_a_request_is_dispatched_while_its_row_is_written_and_answered_after(tmp_path: Path) -> None:
    async def play() -> None:
        async with served(tmp_path) as at:
            asked = asyncio.ensure_future(at.desk.submit(JOB))
            await turns()
            (task,) = at.tasks()
            at.done(task.ref)
            await turns()
            assert not asked.done()
            assert at.desk.counts["accepted"] == 0
            assert at.desk.counts["succeeded"] == 0
            await at.store.go_on()
            view = await asked
            await at.store.settle()
            await turns()
            await at.store.go_on()
            await at.store.settle()
            found = await at.desk.job(view.id)
            assert found is not None
            assert found.status == "succeeded"
            assert (at.desk.counts["accepted"], at.desk.counts["succeeded"]) == (1, 1)
            assert not at.bench.ledger.requests

    asyncio.run(play())


def test_with_a_key_it_may_be_an_earlier_one_so_nothing_begins_before_that_is_known(tmp_path: Path) -> None:
    async def play() -> None:
        async with served(tmp_path) as at:
            asked = asyncio.ensure_future(at.desk.submit(KEYED))
            await turns()
            assert at.tasks() == []
            await at.store.go_on()
            first = await asked
            await turns()
            assert len(at.tasks()) == 1
            again = asyncio.ensure_future(at.desk.submit(KEYED))
            await turns()
            await at.store.go_on()
            assert (await again).id == first.id
            assert len(at.tasks()) == 1

    asyncio.run(play())


@pytest.mark.parametrize("finished", [False, True])
def test_what_cannot_be_written_was_never_there(tmp_path: Path, *, finished: bool) -> None:
    async def play() -> None:
        async with served(tmp_path) as at:
            asked = asyncio.ensure_future(at.desk.submit(JOB))
            await turns()
            (task,) = at.tasks()
            if finished:
                at.done(task.ref)
                await turns()
            refused, endings = at.store.waiting[:1], at.store.waiting[1:]
            at.store.waiting = refused
            await at.store.go_on(full=True)
            with pytest.raises(StorageFull):
                await asked
            await turns()
            at.store.waiting = endings
            await at.store.go_on()  # an ending without a row
            await at.store.settle()
            await turns()
            assert not at.bench.ledger.requests
            assert not at.desk.book.live
            assert not any(at.desk.counts.values())
            assert not at.desk.finished_at
            assert at.store.read("SELECT id FROM items") == []
            cancels = [message for message in at.bench.sent[WORKER] if isinstance(message, wire.Cancel)]
            assert bool(cancels) != finished

    asyncio.run(play())
