"""The floor under the head: a bare durable hub. What SQLite, CURVE and ZeroMQ cost in Python before there is any logic.

One process accepts requests, makes each durable (an INSERT each, group commits, WAL, ``synchronous=FULL``, the fsync before
it is sent anywhere), then sends it through three zero-time stages in worker processes over one CURVE ROUTER with DEALERs, a
msgspec message a frame, against credits that the workers grant, and answers.

It has no leases, epochs, retries, heartbeats, priorities, validation, HTTP, metrics or artefacts, its table has no index,
and above all only the acceptance is durable: how a request ended is kept nowhere, so it fsyncs once where a service does
twice. What a product adds is measured as the ratio to this. ``python -m bench.durable_hub [SECONDS]`` prints the figures.
"""

import asyncio
import queue
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec
import zmq

from bench.load import Load, drive
from disagctl.hub import descriptor

STAGES: Final = 3
CREDITS: Final = 64  # tasks that a worker takes at a time: as many as the product gives one whose tasks take no time
BODY: Final = b'{"prompt": "a red circle", "size": "64x64", "num_inference_steps": 4}'


class Job(msgspec.Struct, array_like=True):
    """What passes the stages. ``out_bytes``: what each stage but the last hands on, through the hub."""

    number: int
    stage: int
    body: bytes
    out_bytes: int = 0


class Journal:
    """Accepted jobs, fsynced in groups by a thread."""

    def __init__(self, path: Path) -> None:
        self._queue: queue.SimpleQueue[tuple[int, bytes, asyncio.Future[None]] | None] = queue.SimpleQueue()
        self._path = path
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def accept(self, number: int, body: bytes) -> "asyncio.Future[None]":
        """Resolves once the row is on disk."""
        future: asyncio.Future[None] = self._loop.create_future()
        self._queue.put((number, body, future))
        return future

    def close(self) -> None:
        """Stop."""
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        db = sqlite3.connect(self._path, isolation_level=None)
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=FULL")
        db.execute("CREATE TABLE jobs (id INTEGER PRIMARY KEY, body BLOB)")
        while (first := self._queue.get()) is not None:
            group = [first]
            while not self._queue.empty() and (item := self._queue.get()) is not None:
                group.append(item)
            db.execute("BEGIN")
            db.executemany("INSERT INTO jobs VALUES (?, ?)", [(n, b) for n, b, _ in group])
            db.execute("COMMIT")
            self._loop.call_soon_threadsafe(_resolve, [f for _, _, f in group])
        db.close()


def _resolve(futures: list["asyncio.Future[None]"]) -> None:
    for future in futures:
        future.set_result(None)


class BareHub:
    """ROUTER with CURVE, one worker a stage."""

    def __init__(self, context: "zmq.Context[Any]", journal: Journal, keys: tuple[bytes, bytes] | None) -> None:
        self._journal = journal
        self._socket = context.socket(zmq.ROUTER)
        if keys is not None:
            self._socket.curve_server = True
            self._socket.curve_publickey, self._socket.curve_secretkey = keys
        self.port = self._socket.bind_to_random_port("tcp://127.0.0.1")
        self._decoder = msgspec.msgpack.Decoder(Job)
        self._encoder = msgspec.msgpack.Encoder()
        self._waiting: dict[int, asyncio.Future[None]] = {}
        self._credits = [0] * STAGES
        self._queues: list[deque[Job]] = [deque() for _ in range(STAGES)]
        self._next = 0
        self._loop = asyncio.get_running_loop()
        self.workers = asyncio.Semaphore(0)
        self._loop.add_reader(descriptor(self._socket), self._drain)

    async def one(self, out_bytes: int = 0) -> None:
        """One request, until it is through all stages."""
        self._next += 1
        number = self._next
        await self._journal.accept(number, BODY)
        done = self._waiting[number] = self._loop.create_future()
        self._dispatch(Job(number, 0, BODY, out_bytes))
        self._loop.call_soon(self._drain)  # sending can swallow the edge that the descriptor fires on
        await done

    def close(self) -> None:
        """End the workers and the socket."""
        for stage in range(STAGES):
            self._socket.send_multipart([b"%d" % stage, b""])
        self._loop.remove_reader(descriptor(self._socket))
        self._socket.close(1000)

    def _dispatch(self, job: Job) -> None:
        """To its stage's worker, or into the line for it."""
        if self._credits[job.stage]:
            self._credits[job.stage] -= 1
            self._socket.send_multipart([b"%d" % job.stage, self._encoder.encode(job)])
        else:
            self._queues[job.stage].append(job)

    def _credit(self, stage: int, count: int) -> None:
        self._credits[stage] += count
        line = self._queues[stage]
        while line and self._credits[stage]:
            self._dispatch(line.popleft())

    def _drain(self) -> None:
        while True:
            try:
                name, frame = self._socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            if not frame:
                self._credit(int(name), CREDITS)
                self.workers.release()
                continue
            job = self._decoder.decode(frame)
            self._credit(job.stage, 1)
            job.stage += 1
            if job.stage < STAGES:
                self._dispatch(job)
            else:
                self._waiting.pop(job.number).set_result(None)


@dataclass(frozen=True, slots=True)
class Floor:
    """Figures of the bare hub."""

    many: Load  # 64 in flight
    single: Load
    big: Load  # 8 in flight, 8 MiB between the stages


async def measure(seconds: float) -> Floor:
    """Everything that the product's figures are compared with. The 8 MiB go in the clear: encrypting them would help us."""
    async with _running(zmq.curve_keypair()) as hub:
        await drive(hub.one, 16, min(1.0, seconds))
        many, single = await drive(hub.one, 64, seconds), await drive(hub.one, 1, seconds)
    async with _running(None) as hub:
        return Floor(many, single, await drive(lambda: hub.one(8 << 20), 8, seconds))


@asynccontextmanager
async def _running(keys: tuple[bytes, bytes] | None) -> AsyncIterator[BareHub]:
    with tempfile.TemporaryDirectory(prefix="disagctl-bench-") as folder, zmq.Context() as context:
        journal = Journal(Path(folder) / "jobs.db")
        hub = BareHub(context, journal, keys)
        command = [sys.executable, "-m", "bench.durable_hub", "--worker"]
        rest = [str(hub.port), *([keys[0].decode()] if keys else [])]
        workers = [subprocess.Popen([*command, str(n), *rest]) for n in range(STAGES)]  # noqa: ASYNC220
        try:
            for _ in workers:
                await asyncio.wait_for(hub.workers.acquire(), 30.0)
            yield hub
        finally:
            hub.close()
            journal.close()
            for worker in workers:
                worker.wait(10.0)


def work(name: str, port: str, server_key: str = "") -> None:
    """A stage that takes no time."""
    jobs = msgspec.msgpack.Decoder(Job)
    with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
        socket.identity = name.encode()
        if server_key:
            socket.curve_publickey, socket.curve_secretkey = zmq.curve_keypair()
            socket.curve_serverkey = server_key.encode()
        socket.connect(f"tcp://127.0.0.1:{port}")
        socket.send(b"")
        while frame := socket.recv():
            job = jobs.decode(frame)
            if job.out_bytes:
                job.body = bytes(job.out_bytes) if job.stage + 1 < STAGES else BODY
            socket.send(msgspec.msgpack.encode(job), copy=False)


def main() -> None:
    """Entry point of the worker, or of a run by hand."""
    from disagctl.settings import use_fast_loop

    if sys.argv[1:2] == ["--worker"]:
        work(*sys.argv[2:])
        return
    use_fast_loop()
    floor = asyncio.run(measure(float(sys.argv[1]) if len(sys.argv) > 1 else 5.0))
    print(f"64 in flight {floor.many.per_s:.0f}/s; one {floor.single.p50_ms:.2f} ms; 8 MiB {floor.big.per_s:.0f}/s")


if __name__ == "__main__":
    main()
