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
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import zmq

from stages.boot import WorkerBoot
from stages.cache import OutputCache
from stages.core import MAX_FETCHES, WorkerCore
from stages.instructions import (
    AllowPeers,
    Compute,
    Fetch,
    Forget,
    Instruction,
    Load,
    Publish,
    Send,
    SetDegree,
    SetReach,
    Stop,
    Suspend,
    Unload,
)
from stages.link import Link
from stages.pipeline import Completion, Pipeline, shm_worker_dir
from stages.protocol import HEARTBEAT_S, Done, HeadMessage, Started, WorkerMessage
from stages.recorder import Recorder
from stages.settings import test_faults
from stages.transport import mooncake
from stages.transport.base import Fetcher, TransportMode
from stages.transport.data_server import DataServer
from stages.transport.faulty import Cap, Faults, FaultyFetcher
from stages.transport.fetcher import RouteFetcher, Ways
from stages.transport.outbox import HeldOutbox, Reach
from stages.transport.relay import RelayError, RelayStore

log = logging.getLogger("stages.worker")

OUTBOX_BYTES = 16 << 30  # a bound, far above what credits allow
PR_SET_PDEATHSIG = 1
BRISK_S = 0.002  # tasks shorter than this may be over before the news that they began is worth a message
LINGER_MS = 1
GATHER_S = 0.0005  # results of such tasks wait this long for more, if more are in the making


class Mailbox:
    """Completions from the threads, and the wake-up of the main loop, which costs a system call only while that sleeps."""

    def __init__(self) -> None:
        self.items: deque[Completion] = deque()
        self._asleep = False
        self.reader, self._writer = socket.socketpair()
        self.reader.setblocking(False)
        self._writer.setblocking(False)

    def post(self, item: Completion) -> None:
        """From any thread."""
        self.items.append(item)
        if self._asleep:
            self._asleep = False  # one wake-up is enough
            try:
                self._writer.send(b"x")
            except BlockingIOError:
                return  # it is full of wake-ups already

    def sleep(self) -> bool:
        """On the main thread, before it waits on ``reader``: False when there is something to take at once."""
        self._asleep = True  # first: what is posted from here on wakes us
        return not self.items

    def wake(self, *, called: bool) -> None:
        """On the main thread, after that. ``called``: ``reader`` has something to read."""
        self._asleep = False
        if called:
            self.reader.recv(4096)


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
        relay = relay_of(boot)
        engine = mooncake.start(boot.advertise, boot.trusted, protocol=boot.mooncake) if boot.trusted else None
        self.ways = Ways(engine, relay)
        self.outbox = HeldOutbox(
            boot.transport,  # type: ignore[arg-type]  # checked by the outbox
            shm_worker_dir(boot.shm_dir, boot.worker),
            boot.host,
            self.server.endpoint,
            boot.public,
            OUTBOX_BYTES,
            mooncake=self.ways.mooncake,
            relay=relay,
        )
        self.outbox.set_reach(Reach(here=True, elsewhere=False))  # until the head says that there are other hosts
        self.server.start(self.outbox.read)
        self.pipeline = Pipeline(
            self.mail.post,
            self.outbox,
            (*faulty([self._fetcher() for _ in range(MAX_FETCHES)]), self._fetcher()),
            HeadUploader(boot, self._fetcher()),
            Recorder(boot.recorder_fd),
            "cuda:0" if boot.gpus else "cpu",  # the first that we are shown; others are for our ranks
            OutputCache() if boot.encoder_cache else None,
        )
        self.context: zmq.Context[Any] = zmq.Context()
        self.link: Link[HeadMessage, WorkerMessage] = Link(
            self.context, boot.hub, boot.worker, (boot.public, boot.secret), boot.head_key, list[HeadMessage]
        )
        self._outgoing: list[WorkerMessage] = []
        self._called = self.mail.reader.fileno()
        self._brisk = False
        self._running = True

    def _fetcher(self) -> RouteFetcher:
        boot = self.boot
        # Else "auto": the producer's mode decides which routes an offer has, and uploads by the head have only one.
        mode: TransportMode = "mooncake" if boot.transport == "mooncake" else "auto"
        return RouteFetcher(boot.host, Path(boot.shm_dir), boot.public, boot.secret, mode, ways=self.ways)

    def run(self) -> None:
        """Until the agent says stop."""
        poller = zmq.Poller()
        poller.register(self.link.socket, zmq.POLLIN)
        poller.register(self._called, zmq.POLLIN)
        self._perform(self.core.restate())
        next_beat = time.monotonic() + HEARTBEAT_S
        while self._running:
            if self._brisk and self.core.computing and any(isinstance(m, Done) for m in self._outgoing):
                time.sleep(GATHER_S)
                self._take_mail()
            asleep = self.mail.sleep()
            ready = poller.poll(LINGER_MS) if asleep and self._may_linger() else []
            if not ready:
                self._flush()
                ready = poller.poll(max(0, int((next_beat - time.monotonic()) * 1000)) if asleep else 0)
            self.mail.wake(called=any(what == self._called for what, _ in ready))
            messages, lost = self.link.receive()
            for message in messages:
                self._perform(self.core.message(message))
                if self.mail.items:
                    self._take_mail()
            self._perform(self.core.settle())
            if lost:
                self._perform(self.core.gap())
            self._take_mail()
            if time.monotonic() >= next_beat:
                next_beat = time.monotonic() + HEARTBEAT_S
                self._perform(self.core.beat())

    def _take_mail(self) -> None:
        items = self.mail.items
        while items:
            self._perform(items.popleft()(self.core))

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
        if self.ways.relay is not None:
            self.ways.relay.close()
        self.context.destroy(0)

    def _may_linger(self) -> bool:
        """Whether all there is to say is that a task began which may well be over in a moment."""
        return self._brisk and bool(self._outgoing) and all(isinstance(m, Started) for m in self._outgoing)

    def _flush(self) -> None:
        if self._outgoing:
            outgoing, self._outgoing = self._outgoing, []
            if any(type(m) is Started for m in outgoing):
                done = {message.ref for message in outgoing if isinstance(message, Done)}
                outgoing = [m for m in outgoing if not (isinstance(m, Started) and m.ref in done)]
            self.link.send(outgoing)

    def _perform(self, instructions: list[Instruction]) -> None:
        for instruction in instructions:
            kind = type(instruction)  # those of every task by their type: a match asks one after another
            if kind is Send:
                message = instruction.message  # type: ignore[union-attr]
                self._outgoing.append(message)
                if type(message) is Done:
                    self._brisk = message.seconds < BRISK_S
            elif kind is Compute:
                self.pipeline.compute(instruction.task, instruction.others)  # type: ignore[union-attr]
            elif kind is Forget:
                self.pipeline.forget(instruction.key)  # type: ignore[union-attr]
            else:
                self._perform_other(instruction)

    def _perform_other(self, instruction: Instruction) -> None:
        match instruction:
            case Fetch(task=task):
                self.pipeline.fetch(task)
            case Publish(ref=ref):
                self.pipeline.publish(ref)
            case Stop(ref=ref):
                self.pipeline.stop_task(ref)
            case SetDegree(ref=ref, degree=degree):
                self.pipeline.set_degree(ref, degree)
            case Suspend(ref=ref):
                self.pipeline.suspend(ref)
            case Load():
                self.pipeline.load(instruction)
            case Unload():
                self.pipeline.unload()
            case AllowPeers(keys=keys):
                self.server.set_peers({*keys, self.boot.public, self.boot.head_key})
            case SetReach(reach=reach):
                here = self.boot.host in reach.shared or not reach.several
                self.outbox.set_reach(Reach(here, reach.several, reach.relay))


def relay_of(boot: WorkerBoot) -> RelayStore | None:
    """The worker's way to the store; None where there is none or it cannot be used, of which the agent tells."""
    try:
        return RelayStore(boot.relay, boot.worker, boot.relay_key) if boot.relay else None
    except RelayError as err:
        log.error("the store cannot be used: %s", err)
        return None


def faulty(fetchers: Sequence[Fetcher]) -> Sequence[Fetcher]:
    """The fetchers; in a test that asks for them, with faults."""
    wanted = test_faults()
    if not wanted:
        return fetchers
    faults = msgspec.json.decode(wanted, type=Faults)
    log.warning("transfers are made to fail: %s", wanted)
    cap = Cap(faults.bytes_per_s)
    return [FaultyFetcher(f, faults, faults.seed + i, time.sleep, cap) for i, f in enumerate(fetchers)]


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
