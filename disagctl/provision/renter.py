"""The one process on a head's node that holds credentials. It rents for the head, which runs as another user and has none.

A head speaks HTTP with strangers; whoever took it over could ask here for machines of this service, and read no credential.
The wire is a Unix socket: a length in four bytes, then msgpack; one question a connection.
"""

import asyncio
import logging
import os
import signal
import socket
import struct
from pathlib import Path
from typing import Final, TypeAlias

import msgspec

from disagctl.errors import UnexpectedError
from disagctl.failed import Failed, as_failed
from disagctl.provision.base import NodeHandle, NodeRequest, Provisioner
from disagctl.provision.sky.names import owner

log = logging.getLogger(__name__)

LENGTH: Final = struct.Struct("!I")
MOST_BYTES: Final = 8 << 20
READ_S: Final = 30.0
LOG_LINES: Final = 1000


class Launch(msgspec.Struct, tag=True, frozen=True):
    """Provisioner.launch."""

    request: NodeRequest


class List(msgspec.Struct, tag=True, frozen=True):
    """Provisioner.list."""

    known: tuple[NodeHandle, ...]


class Release(msgspec.Struct, tag=True, frozen=True):
    """Provisioner.release."""

    handle: NodeHandle


class Logs(msgspec.Struct, tag=True, frozen=True):
    """Provisioner.logs."""

    handle: NodeHandle
    tail: int


class Answer(msgspec.Struct, tag=True, frozen=True):
    """Whatever the question asked for."""

    handles: tuple[NodeHandle, ...] = ()
    lines: tuple[str, ...] = ()


Question: TypeAlias = Launch | List | Release | Logs
QUESTION: Final = msgspec.msgpack.Decoder(Question)
ANSWER: Final = msgspec.msgpack.Decoder(Answer | Failed)


async def receive(reader: asyncio.StreamReader) -> bytes:
    """One message. Raises ConnectionError for one that is too long or cut short."""
    try:
        (length,) = LENGTH.unpack(await reader.readexactly(LENGTH.size))
        if length > MOST_BYTES:
            raise ConnectionError(f"a message of {length} bytes")
        return await reader.readexactly(length)
    except asyncio.IncompleteReadError as err:
        raise ConnectionError("the other side went away") from err


async def send(writer: asyncio.StreamWriter, message: msgspec.Struct) -> None:
    """One message."""
    data = msgspec.msgpack.encode(message)
    writer.write(LENGTH.pack(len(data)) + data)
    await writer.drain()


class Renter:
    """Answers for one service, and touches machines of no other."""

    def __init__(self, provisioner: Provisioner, uid: str, allowed: int) -> None:
        self._provisioner, self._uid, self._allowed = provisioner, uid, allowed

    async def serve(self, path: Path) -> asyncio.Server:
        """Listen; the folder's group is the head's, and only that may connect."""
        path.unlink(missing_ok=True)
        server = await asyncio.start_unix_server(self._one, path)
        path.chmod(0o660)
        return server

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if _peer(writer) not in {self._allowed, os.getuid()}:
                return
            question = QUESTION.decode(await asyncio.wait_for(receive(reader), READ_S))
            try:
                answer: msgspec.Struct = await self._answer(question)
            except Exception as err:  # noqa: BLE001  # boundary: a provider's library; the head is told
                answer = as_failed(err)
            await send(writer, answer)
        except (OSError, TimeoutError, msgspec.DecodeError) as err:
            log.warning("a question that cannot be answered: %s", err)
        finally:
            writer.close()

    async def _answer(self, question: Question) -> Answer:
        match question:
            case Launch(request=request):
                if request.uid != self._uid:
                    raise UnexpectedError("that is another service")
                return Answer((await self._provisioner.launch(request),))
            case List(known=known):
                return Answer(tuple(await self._provisioner.list([self._mine(handle) for handle in known])))
            case Release(handle=handle):
                await self._provisioner.release(self._mine(handle))
                return Answer()
            case Logs(handle=handle, tail=tail):
                lines = await self._provisioner.logs(self._mine(handle), min(tail, LOG_LINES))
                return Answer(lines=lines)

    def _mine(self, handle: NodeHandle) -> NodeHandle:
        """A machine's name says whose it is."""
        found = owner(handle.provider_id) if handle.provider_id else None
        if handle.provider_id and (found is None or found.uid != self._uid):
            raise UnexpectedError(f"{handle.provider_id} is another service's")
        return handle


def _peer(writer: asyncio.StreamWriter) -> int:
    """The uid of whoever connected."""
    sock: socket.socket = writer.get_extra_info("socket")
    size = struct.calcsize("3i")
    return int(struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))[1])


async def serve_until_told(provisioner: Provisioner, uid: str, allowed: int, path: Path) -> None:
    """Serve until SIGTERM."""
    over = asyncio.Event()
    for sig in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(sig, over.set)
    async with await Renter(provisioner, uid, allowed).serve(path):
        log.info("renting for %s", uid)
        await over.wait()
