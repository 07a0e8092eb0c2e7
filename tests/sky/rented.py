"""A provisioner under test, and as much of a head as its agents need."""

import asyncio
import contextlib
import secrets
import threading
from pathlib import Path

import msgspec
import zmq

from disagctl.errors import UnexpectedError
from disagctl.provision.base import HandleState, NodeHandle, NodeRequest
from disagctl.provision.sky import SkyProvisioner
from planner.domain import Offer
from stages.boot import Bootstrap, Enrolled
from tests.sky.slurm import Slurm


class Welcome:
    """As much of a head as lets agents in; they then wait for its orders until they are ended."""

    def __init__(self, address: str) -> None:
        public, secret = zmq.curve_keypair()
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.ROUTER)
        self._socket.curve_server, self._socket.curve_secretkey = True, secret
        port = self._socket.bind_to_random_port(f"tcp://{address}")
        self._answer = msgspec.msgpack.encode(Enrolled("", "tcp://127.0.0.1:9", "tcp://127.0.0.1:9"))
        self.bootstrap = Bootstrap("n1", f"tcp://{address}:{port}", public.decode(), "token", "", "/dev/shm", "")
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                sender, *_ = self._socket.recv_multipart()
            except zmq.ContextTerminated:
                return self._socket.close(0)
            self._socket.send_multipart([sender, self._answer])

    def close(self) -> None:
        """End it."""
        threading.Thread(target=self._context.term).start()
        self._thread.join()


class Rented:
    """A provisioner and what was asked of it."""

    def __init__(self, work: Path, head: Welcome) -> None:
        self.boot = head.bootstrap
        self.uid = secrets.token_hex(4)
        self.work = work
        self.provisioner = self.again()

    def again(self) -> SkyProvisioner:
        """Another one for the same service, as after a restart."""
        return SkyProvisioner("test", self.uid, self.work, "core")

    async def launch(self, *offers: Offer, node: str = "n1") -> NodeHandle:
        """Ask for a node."""
        return await self.provisioner.launch(self.request(*offers, node=node))

    def request(self, *offers: Offer, node: str = "n1") -> NodeRequest:
        """A wish for a node."""
        boot = msgspec.json.encode(msgspec.structs.replace(self.boot, node=node))
        return NodeRequest(node, secrets.token_hex(4), "test", self.uid, offers, boot)

    def jobs(self, slurm: Slurm) -> list[str]:
        """What Slurm has of this service."""
        return [job for job in slurm.jobs() if self.uid in job]

    async def settled(self, handle: NodeHandle) -> NodeHandle:
        """Its state once it is no longer launching."""
        return await self.changed(handle, "launching")

    async def changed(self, handle: NodeHandle, state: HandleState) -> NodeHandle:
        """Its state once that is another one. SkyPilot does not always answer on a busy machine: then nothing is known."""
        while handle.state == state:
            await asyncio.sleep(2)
            with contextlib.suppress(UnexpectedError):
                handle = (await self.provisioner.list([handle]))[0]
        return handle
