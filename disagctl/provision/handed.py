"""The Provisioner of a head that holds no credentials: it asks the process beside it that does (renter.py)."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Final

from disagctl.errors import UnexpectedError
from disagctl.failed import Failed, as_error
from disagctl.provision import renter
from disagctl.provision.base import NodeHandle, NodeRequest

ANSWER_S: Final = 600.0  # releasing a machine takes minutes
BEGIN_TRIES: Final = 120  # both processes start together, and the renter takes the longer: it imports SkyPilot
BEGIN_WAIT_S: Final = 0.5


class HandedProvisioner:
    """Machines of one service, through the socket of its renter."""

    name = "sky"
    period_s = 3.0
    lag_s = 30.0

    def __init__(self, path: Path, pause: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        self._path, self._pause = path, pause

    async def launch(self, request: NodeRequest) -> NodeHandle:
        """See the protocol."""
        (handle,) = (await self._ask(renter.Launch(request))).handles
        return handle

    async def list(self, known: Sequence[NodeHandle]) -> list[NodeHandle]:
        """See the protocol."""
        return list((await self._ask(renter.List(tuple(known)))).handles)

    async def release(self, handle: NodeHandle) -> None:
        """See the protocol."""
        await self._ask(renter.Release(handle))

    async def logs(self, handle: NodeHandle, tail: int) -> tuple[str, ...]:
        """See the protocol."""
        return (await self._ask(renter.Logs(handle, tail))).lines

    async def _connected(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Nothing has been asked yet, so to wait for who is not there yet cannot ask twice."""
        for _ in range(BEGIN_TRIES):
            try:
                return await asyncio.open_unix_connection(self._path)
            except (FileNotFoundError, ConnectionRefusedError):
                await self._pause(BEGIN_WAIT_S)
        return await asyncio.open_unix_connection(self._path)

    async def _ask(self, question: renter.Question) -> renter.Answer:
        try:
            async with asyncio.timeout(ANSWER_S):
                reader, writer = await self._connected()
                try:
                    await renter.send(writer, question)
                    answer: renter.Answer | Failed = renter.ANSWER.decode(await renter.receive(reader))
                finally:
                    writer.close()
        except OSError as err:  # ConnectionError and TimeoutError among them: nothing is known, and it is asked again
            raise UnexpectedError("the renting process does not answer", why=str(err), code="renter_down") from err
        if isinstance(answer, Failed):
            raise as_error(answer)
        return answer
