"""A worker process: ``python -m stages.worker``, started by the node's agent, which writes one line of JSON to its stdin.

The main thread owns the link to the head and the state machine; :mod:`stages.pipeline` owns the threads that work. The
end of stdin means that the agent is gone, and then the worker goes too.
"""

import ctypes
import logging
import os
import select
import signal
import socket
import sys
import threading
import time
from collections import deque
from pathlib import Path
from typing import Any

import msgspec
import zmq

from stages.core import (
    AllowPeers,
    Compute,
    Fetch,
    Forget,
    Instruction,
    Load,
    Publish,
    Send,
    Stop,
    Unload,
    WorkerCore,
)
from stages.link import Link
from stages.pipeline import Completion, Pipeline, shm_worker_dir
from stages.protocol import HEARTBEAT_S, HeadMessage, WorkerBoot, WorkerMessage
from stages.recorder import Recorder
from stages.transport.data_server import DataServer
from stages.transport.fetcher import RouteFetcher
from stages.transport.outbox import HeldOutbox

log = logging.getLogger("stages.worker")

OUTBOX_BYTES = 16 << 30  # a bound, far above what credits allow
PR_SET_PDEATHSIG = 1


class Mailbox:
    """Completions from the threads, and the wake-up of the main loop."""

    def __init__(self) -> None:
        self._items: deque[Completion] = deque()
        self.reader, self._writer = socket.socketpair()
        self.reader.setblocking(False)
        self._writer.setblocking(False)

    def post(self, item: Completion) -> None:
        """From any thread."""
        self._items.append(item)
        try:
            self._writer.send(b"x")
        except BlockingIOError:
            return  # it is full of wake-ups already

    def take(self) -> list[Completion]:
        """On the main thread."""
        try:
            while self.reader.recv(4096):
                pass
        except BlockingIOError:
            pass
        items = []
        while self._items:
            items.append(self._items.popleft())
        return items


class HeadUploader:
    """Pushes large artefacts to the head's data server; used by the send thread alone."""

    def __init__(self, boot: WorkerBoot, fetcher: RouteFetcher) -> None:
        self._boot, self._fetcher = boot, fetcher

    def upload(self, key: str, data: bytes, checksum: int, deadline_s: float) -> None:
        """Push and return once it is stored."""
        self._fetcher.upload(self._boot.data, self._boot.head_key, key, data, checksum, deadline_s)


class Worker:
    """Ties link, core and pipeline together."""

    def __init__(self, boot: WorkerBoot) -> None:
        self.boot = boot
        self.core = WorkerCore(boot.worker, boot.node, os.getpid(), synchronous=boot.pipeline == "sync")
        self.mail = Mailbox()
        self.server = DataServer(
            public_key=boot.public, secret_key=boot.secret, host=boot.advertise, peers=(boot.public, boot.head_key)
        )
        self.outbox = HeldOutbox(
            boot.transport,  # type: ignore[arg-type]  # checked by the outbox
            shm_worker_dir(boot.shm_dir, boot.worker),
            boot.host,
            self.server.endpoint,
            boot.public,
            OUTBOX_BYTES,
        )
        self.server.start(self.outbox.read)
        self.pipeline = Pipeline(
            self.mail.post,
            self.outbox,
            (self._fetcher(), self._fetcher()),
            HeadUploader(boot, self._fetcher()),
            Recorder(boot.recorder_fd),
            "cpu" if boot.gpu is None else "cuda:0",  # the agent shows us one GPU
        )
        self.context: zmq.Context[Any] = zmq.Context()
        self.link: Link[HeadMessage, WorkerMessage] = Link(
            self.context, boot.hub, boot.worker, (boot.public, boot.secret), boot.head_key, list[HeadMessage]
        )
        self._outgoing: list[WorkerMessage] = []
        self._running = True

    def _fetcher(self) -> RouteFetcher:
        boot = self.boot
        # "auto": the producer's mode decides which routes an offer has, and uploads by the head have only one
        return RouteFetcher(boot.host, Path(boot.shm_dir), boot.public, boot.secret, "auto")

    def run(self) -> None:
        """Until the agent says stop."""
        poller = zmq.Poller()
        poller.register(self.link.socket, zmq.POLLIN)
        poller.register(self.mail.reader, zmq.POLLIN)
        self._perform(self.core.restate())
        next_beat = time.monotonic() + HEARTBEAT_S
        while self._running:
            self._flush()
            poller.poll(max(0, int((next_beat - time.monotonic()) * 1000)))
            messages, lost = self.link.receive()
            for message in messages:
                self._perform(self.core.message(message))
            if lost:
                self._perform(self.core.gap())
            for completion in self.mail.take():
                self._perform(completion(self.core))
            if time.monotonic() >= next_beat:
                next_beat = time.monotonic() + HEARTBEAT_S
                self._perform(self.core.beat())

    def stop(self) -> None:
        """From any thread or signal handler: leave ``run``."""
        self._running = False
        self.mail.post(lambda _core: [])

    def close(self) -> None:
        """Sockets, threads, segments."""
        self.link.close()
        self.pipeline.close(timeout_s=1.0)
        self.server.stop()
        self.outbox.close()
        self.context.destroy(0)

    def _flush(self) -> None:
        if self._outgoing:
            outgoing, self._outgoing = self._outgoing, []
            self.link.send(outgoing)

    def _perform(self, instructions: list[Instruction]) -> None:  # noqa: C901  # a table
        for instruction in instructions:
            match instruction:
                case Send(message=message):
                    self._outgoing.append(message)
                case Compute(task=task):
                    self._flush()  # Started must be on its way before the engine can take the process down
                    self.pipeline.compute(task)
                case Fetch(task=task):
                    self.pipeline.fetch(task)
                case Publish(ref=ref):
                    self.pipeline.publish(ref)
                case Stop(ref=ref):
                    self.pipeline.stop_task(ref)
                case Forget(key=key):
                    self.pipeline.forget(key)
                case Load():
                    self.pipeline.load(instruction)
                case Unload():
                    self.pipeline.unload()
                case AllowPeers(keys=keys):
                    self.server.set_peers({*keys, self.boot.public, self.boot.head_key})


def die_with_parent() -> None:
    """Linux: have the kernel end us when the agent ends, even if we are stopped or busy. Elsewhere stdin tells."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def watch_parent(worker: Worker) -> None:
    """Leave when stdin ends: the agent closed it, or is gone."""

    def run() -> None:
        fd = sys.stdin.fileno()
        while True:
            select.select([fd], [], [])
            if not os.read(fd, 4096):
                worker.stop()
                return

    threading.Thread(target=run, name="parent", daemon=True).start()


def main() -> None:
    """Entry point of the process."""
    die_with_parent()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    boot = msgspec.json.decode(_read_line(sys.stdin.fileno()), type=WorkerBoot)
    worker = Worker(boot)
    signal.signal(signal.SIGTERM, lambda *_: worker.stop())
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in the user's terminal is not meant for us
    watch_parent(worker)
    log.info("worker %s, pid %d", boot.worker, os.getpid())
    try:
        worker.run()
    finally:
        worker.close()
        # A computation may still hold the compute thread, and interpreter shutdown would wait for libraries' own threads.
        sys.stderr.flush()
        os._exit(0)


def _read_line(fd: int, limit: int = 65536) -> bytes:
    """Read one line byte by byte: nothing after it may be taken from the pipe."""
    line = b""
    while not line.endswith(b"\n") and len(line) < limit:
        byte = os.read(fd, 1)
        if not byte:
            break
        line += byte
    return line


if __name__ == "__main__":
    main()
