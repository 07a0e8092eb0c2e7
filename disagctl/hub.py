"""The head's end of all control links: one ROUTER with CURVE, driven by the event loop.

libzmq's file descriptor is edge-triggered, and sending can swallow an edge, so the socket is drained whenever the
descriptor fires *and* after every flush. That is far cheaper a message than a future each.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Protocol

import msgspec
import zmq

from disagctl.keys import KeyPair
from stages.link import NOBLOCK, SEQ_BYTES, Counter, FrameError, frames_of, readable, tune
from stages.protocol import AgentMessage, AgentOrder, HeadMessage, Release, Who, WorkerMessage
from stages.transport.zap import AllowList

log = logging.getLogger(__name__)

FRAMES_A_TURN: Final = 512  # then HTTP gets its turn
HUB_HIGH_WATER: Final = 100_000
RELEASE_S: Final = 0.02  # so long a Release waits at most
ADDRESS: Final = NOBLOCK | int(zmq.SNDMORE)

Incoming = WorkerMessage | AgentMessage
Outgoing = HeadMessage | AgentOrder


def descriptor(socket: "zmq.Socket[bytes]") -> int:
    """The file descriptor that says that something may have changed."""
    return int(socket.getsockopt(zmq.FD))


class Receiver(Protocol):
    """Who the hub hands messages to."""

    def receive(self, peer: str, messages: list[Incoming]) -> None:
        """Messages of one frame."""

    def turn_over(self) -> None:
        """Everything that was waiting has been received: now act on it, once."""


class Hub:
    """Bind, then ``start`` within a running loop."""

    def __init__(self, host: str, port: int, keys: KeyPair, receiver: Receiver) -> None:
        self._receiver = receiver
        self._context: zmq.Context[Any] = zmq.Context()
        self._allow = AllowList(self._context)
        self._socket: zmq.Socket[bytes] = self._context.socket(zmq.ROUTER)
        tune(self._socket, high_water=HUB_HIGH_WATER)
        self._socket.setsockopt(zmq.ROUTER_HANDOVER, 1)  # a peer that reconnects takes its name with it
        self._socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        self._socket.setsockopt(zmq.CURVE_SERVER, 1)
        self._socket.setsockopt(zmq.ZAP_DOMAIN, b"disagctl")
        self._socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)
        self._socket.curve_publickey, self._socket.curve_secretkey = keys.public.encode(), keys.secret.encode()
        self._socket.bind(f"tcp://{host}:{port}")
        self._nodes: dict[str, str] = {}  # key → node
        self._decoder = msgspec.msgpack.Decoder(list[Incoming])
        self._encoder = msgspec.msgpack.Encoder()
        self._counters: dict[str, Counter] = {}
        self._outgoing: dict[str, list[Outgoing]] = {}
        self._urgent: dict[str, None] = {}  # peers with more to be told than that they may let something go
        self._late_due = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self.refused = 0
        self.undecodable = 0

    def allow(self, nodes: Mapping[str, str]) -> None:
        """Exactly these nodes (key → node id) may talk to us from now on."""
        self._nodes = dict(nodes)
        self._allow.replace(nodes)

    def start(self) -> None:
        """Begin to serve."""
        self._loop = asyncio.get_running_loop()
        for socket, callback in ((self._socket, self._drain), (self._allow.socket, self._answer)):
            self._loop.add_reader(descriptor(socket), callback)
        self._loop.call_soon(self._drain)
        self._loop.call_soon(self._answer)

    def close(self) -> None:
        """Stop serving."""
        if self._loop is not None:
            for socket in (self._socket, self._allow.socket):
                self._loop.remove_reader(descriptor(socket))
        self._socket.close(0)
        self._allow.close()
        self._context.destroy(0)

    def send(self, peer: str, message: Outgoing) -> None:
        """Queue a message; all of one turn of the loop leave in one frame a peer.

        Nobody waits for a Release: it leaves with what the peer is told next, for a frame of its own wakes a process.
        """
        waiting = self._outgoing.get(peer)
        if waiting is None:
            waiting = self._outgoing[peer] = []
        waiting.append(message)
        if self._loop is None:
            return
        if type(message) is not Release:
            if not self._urgent:
                self._loop.call_soon(self._flush)
            self._urgent[peer] = None
        elif not self._late_due:
            self._late_due = True
            self._loop.call_later(RELEASE_S, self._flush_late)

    def forget(self, peers: Iterable[str]) -> None:
        """Drop the counters of peers that are gone for good."""
        for peer in peers:
            self._counters.pop(peer, None)
            self._outgoing.pop(peer, None)

    def _flush(self) -> None:
        urgent, self._urgent = self._urgent, {}
        self._post(urgent)
        self._drain()

    def _flush_late(self) -> None:
        self._late_due = False
        if self._loop is not None and not self._socket.closed:
            self._post(tuple(self._outgoing))
            self._drain()

    def _post(self, peers: Iterable[str]) -> None:
        for peer in peers:
            messages = self._outgoing.pop(peer, None)
            if messages is None:
                continue  # it was forgotten, or told a moment ago
            counter = self._counters.setdefault(peer, Counter())
            for data in self._encoded(peer, messages, counter):
                try:
                    self._socket.send(peer.encode(), ADDRESS)
                    self._socket.send(counter.stamp() + data, NOBLOCK)
                except zmq.ZMQError as err:
                    log.debug("frame to %s lost: %s", peer, err)  # it will notice the gap and say hello

    def _encoded(self, peer: str, messages: list[Outgoing], counter: Counter) -> list[bytes]:
        try:
            return frames_of(messages, self._encoder)
        except FrameError as err:
            log.error("frame to %s not sent: %s", peer, err)
            counter.stamp()  # the missing number has the peer restate what it holds, and the ledger finds what it lacks
            return []

    def _answer(self) -> None:
        while self._allow.answer():
            pass

    def _drain(self) -> None:
        count = 0
        while count < FRAMES_A_TURN and readable(self._socket):
            count += 1
            self._take(self._socket.recv_multipart(NOBLOCK, copy=False))
        if count:
            self._receiver.turn_over()
        if count == FRAMES_A_TURN and self._loop is not None:
            self._loop.call_soon(self._drain)

    def _take(self, frames: list[zmq.Frame]) -> None:
        peer = self._peer_of(frames)
        if peer is None:
            self.refused += 1
            return
        view = frames[1].buffer
        counter = self._counters.setdefault(peer, Counter())
        follows = len(view) > SEQ_BYTES and counter.check(view)
        try:
            messages = self._decoder.decode(view[SEQ_BYTES:])
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            self.undecodable += 1
            return
        if not follows:
            self.send(peer, Who())
        try:
            self._receiver.receive(peer, messages)
        except Exception:  # boundary: a defect met by one frame must not end the service; restating heals what it broke
            log.exception("a frame of %s was not understood", peer)
            self.send(peer, Who())

    def _peer_of(self, frames: list[zmq.Frame]) -> str | None:
        """The peer's name, if its key entitles it to it: the node's own, or ``<node>.…`` for its workers."""
        if len(frames) != 2:
            return None
        node = self._nodes.get(str(frames[1].get("User-Id")))
        try:
            peer = frames[0].bytes.decode()
        except UnicodeDecodeError:
            return None
        return peer if node is not None and (peer == node or peer.startswith(f"{node}.")) else None


class EnrolDesk:
    """The enrolment socket: raw frames, compared and never decoded. ``admit`` says yes by returning the answer."""

    def __init__(self, host: str, port: int, keys: KeyPair, admit: Callable[[bytes, bytes, bytes], Any]) -> None:
        self._admit = admit
        self._context: zmq.Context[Any] = zmq.Context()
        self._socket: zmq.Socket[bytes] = self._context.socket(zmq.ROUTER)
        tune(self._socket, high_water=100)
        self._socket.setsockopt(zmq.MAXMSGSIZE, 4096)
        self._socket.setsockopt(zmq.CURVE_SERVER, 1)
        self._socket.curve_publickey, self._socket.curve_secretkey = keys.public.encode(), keys.secret.encode()
        self._socket.bind(f"tcp://{host}:{port}")
        self._loop: asyncio.AbstractEventLoop | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.refused = 0

    def start(self) -> None:
        """Begin to serve."""
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(descriptor(self._socket), self._drain)
        self._loop.call_soon(self._drain)

    def close(self) -> None:
        """Stop serving."""
        if self._loop is not None:
            self._loop.remove_reader(descriptor(self._socket))
        self._socket.close(0)
        self._context.destroy(0)

    def _drain(self) -> None:
        while True:
            try:
                frames = self._socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            if len(frames) != 4 or len(self._tasks) >= 100:
                self.refused += 1
                continue
            task = asyncio.ensure_future(self._serve(frames))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _serve(self, frames: list[bytes]) -> None:
        answer = await self._admit(frames[1], frames[2], frames[3])
        if answer is None:
            self.refused += 1
            return
        try:
            self._socket.send_multipart([frames[0], msgspec.msgpack.encode(answer)], zmq.NOBLOCK)
        except zmq.ZMQError as err:
            log.warning("the answer to an enrolment is lost: %s", err)  # it asks again with the same key
        self._drain()
