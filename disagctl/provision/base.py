"""What the head asks of whoever provides machines. Idempotent by intent: asking twice makes one machine."""

from collections.abc import Sequence
from typing import Literal, Protocol

import msgspec

from planner.domain import Offer

HandleState = Literal["launching", "up", "failed", "gone"]
Failure = Literal["no_capacity", "impossible", "credentials", "quota"]


class HeadWish(msgspec.Struct, frozen=True):
    """The machine is the head's own, not an agent's: ``ports`` that others reach, and what it installs to rent from there."""

    ports: tuple[int, ...]
    clouds: tuple[str, ...]
    agent_extra: str


class NodeRequest(msgspec.Struct, frozen=True):
    """A machine wanted. ``bootstrap`` is the agent's file content (a secret): never argv, never a log.

    ``intent`` names the wish for good: random, in the machine's tags beside ``uid``, the service's. ``offers``: to be tried
    in this order, the next only when one has no capacity; empty for ``infra: local``. ``folders``: local model folders
    that the agent needs at the same path. ``script``: of the kit, what the machine is for; ``bootstrap`` is for that.
    """

    node: str
    intent: str
    service: str
    uid: str
    offers: tuple[Offer, ...]
    bootstrap: bytes
    folders: tuple[str, ...] = ()
    secrets: tuple[str, ...] = ()  # names of environment variables that the spec has workers see
    dead_man_s: float = 1800.0
    head: HeadWish | None = None
    script: Literal["agent.sh", "profile.sh"] = "agent.sh"


class NodeHandle(msgspec.Struct, frozen=True):
    """A machine as its provider tells of it now.

    ``state``: launching, up, failed (nothing was made, or what was made is gone again: ``failure`` and ``why`` say why), gone.
    ``offer``: what was rented, as soon as that is known. ``provider_id``: the provider's name for the machine,
    ``request_id``: of the launch under way; both are kept with the node's row, so that another process can go on.
    ``tried``: an entry for every place that was asked, with its answer. Local nodes: the agent's pid and its start time,
    which tell a reused pid apart.
    """

    node: str
    state: HandleState
    intent: str = ""
    offer: Offer | None = None
    provider_id: str = ""
    request_id: str = ""
    failure: Failure | None = None
    why: str = ""
    tried: tuple[str, ...] = ()
    pid: int | None = None
    pid_created: float | None = None
    doubted: bool = False  # of one that is asked about: its agent is silent, so the provider itself is to be asked now


def nothing_left(handle: NodeHandle) -> bool:
    """Whether its provider says that there is no such machine (any more)."""
    return handle.state in {"gone", "failed"}


class Provisioner(Protocol):
    """One provider, for one service."""

    name: str
    period_s: float  # how often it may be asked for a list
    lag_s: float  # for how long after a launch its list may lack the machine

    async def launch(self, request: NodeRequest) -> NodeHandle:
        """Have the machine and its agent started. Returns once the provider has accepted that (it may take minutes more).

        The same intent again returns what the first call began. Raises InfeasibleError, CredentialsError, or another
        DisagctlError after which nothing of this intent exists; after any other error it may.
        """

    async def list(self, known: Sequence[NodeHandle]) -> list[NodeHandle]:
        """The present state of each of ``known``, in order, and after them what else carries this service's uid.

        Raises DisagctlError when the provider cannot be asked: then nothing is known, and nothing counts as gone.
        """

    async def release(self, handle: NodeHandle) -> None:
        """End it, whatever its state; a launch under way is cancelled first. Harmless for one that is gone.

        Returns once the provider says that it is gone; raises TeardownError when it will not go.
        """

    async def logs(self, handle: NodeHandle, tail: int) -> tuple[str, ...]:
        """The last lines of its set-up and of its agent, as far as they can be had."""
