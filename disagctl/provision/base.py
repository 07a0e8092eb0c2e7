"""What the head asks of whoever provides machines. Idempotent by node id: asking twice makes one machine."""

from typing import Protocol

import msgspec


class NodeRequest(msgspec.Struct, frozen=True):
    """A machine wanted. ``bootstrap`` is the agent's file content (a secret): never argv, never a log."""

    node: str
    offer: str
    bootstrap: bytes


class NodeHandle(msgspec.Struct, frozen=True):
    """A machine there is. For local nodes the agent's pid and its start time, which tell a reused pid apart."""

    node: str
    alive: bool
    pid: int | None = None
    pid_created: float | None = None


class Provisioner(Protocol):
    """One provider."""

    name: str

    async def launch(self, request: NodeRequest) -> NodeHandle:
        """Start the machine and its agent. Raises InfeasibleError, CredentialsError …"""

    async def list(self, known: list[NodeHandle]) -> list[NodeHandle]:
        """What exists of these and of anything else of this service."""

    async def release(self, handle: NodeHandle) -> None:
        """End it. Returns once it is gone; raises TeardownError when it will not go."""
