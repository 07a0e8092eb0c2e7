"""A head without credentials rents through the process that has them, over a Unix socket."""

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from disagctl.errors import CredentialsError, DisagctlError, UnexpectedError
from disagctl.provision.base import NodeHandle, NodeRequest
from disagctl.provision.handed import HandedProvisioner
from disagctl.provision.renter import Renter

UID = "12345678"
MINE = NodeHandle("n1", "up", "0badcafe", provider_id=f"dis-{UID}-n1-0badcafe")
OTHERS = NodeHandle("n1", "up", "0badcafe", provider_id="dis-87654321-n1-0badcafe")
REQUEST = NodeRequest("n1", "0badcafe", "shop", UID, (), b"a secret", folders=("/m",), secrets=("HF_TOKEN",))


class Provider:
    """Keeps what it was asked for."""

    name = "fake"
    period_s = lag_s = 0.0

    def __init__(self) -> None:
        self.asked: list[object] = []
        self.error: Exception | None = None

    async def launch(self, request: NodeRequest) -> NodeHandle:
        self.asked.append(request)
        if self.error is not None:
            raise self.error
        return MINE

    async def list(self, known: Sequence[NodeHandle]) -> list[NodeHandle]:
        self.asked.append(tuple(known))
        return [*known, OTHERS]

    async def release(self, handle: NodeHandle) -> None:
        self.asked.append(handle)

    async def logs(self, handle: NodeHandle, tail: int) -> tuple[str, ...]:
        return ("line",) * tail


async def test_everything_is_asked_as_if_there_were_nothing_between(tmp_path: Path) -> None:
    provider, head = Provider(), HandedProvisioner(tmp_path / "s")
    async with await Renter(provider, UID, os.getuid()).serve(tmp_path / "s"):
        assert await head.launch(REQUEST) == MINE
        assert await head.list([MINE]) == [MINE, OTHERS]
        await head.release(MINE)
        assert await head.logs(MINE, 2) == ("line", "line")
    assert provider.asked == [REQUEST, (MINE,), MINE]
    assert (tmp_path / "s").stat().st_mode & 0o777 == 0o660


async def test_errors_keep_their_class_and_words(tmp_path: Path) -> None:
    provider, head = Provider(), HandedProvisioner(tmp_path / "s")
    async with await Renter(provider, UID, os.getuid()).serve(tmp_path / "s"):
        provider.error = CredentialsError("no quota", why="w", next="n", code="quota")
        with pytest.raises(CredentialsError) as caught:
            await head.launch(REQUEST)
        assert str(caught.value) == str(provider.error)
        provider.error = RuntimeError("a defect")
        with pytest.raises(UnexpectedError, match="RuntimeError: a defect"):
            await head.launch(REQUEST)


async def test_machines_of_others_are_out_of_reach(tmp_path: Path) -> None:
    provider, head = Provider(), HandedProvisioner(tmp_path / "s")
    async with await Renter(provider, UID, os.getuid()).serve(tmp_path / "s"):
        for refused in (head.release(OTHERS), head.list([OTHERS]), head.logs(OTHERS, 1)):
            with pytest.raises(UnexpectedError, match="another service"):
                await refused
        with pytest.raises(UnexpectedError, match="another service"):
            await HandedProvisioner(tmp_path / "s").launch(NodeRequest("n1", "x", "shop", "87654321", (), b""))
    assert provider.asked == []


async def test_a_renter_that_begins_later_is_waited_for(tmp_path: Path) -> None:
    provider, waits = Provider(), 0

    async def pause(_: float) -> None:
        nonlocal waits
        waits += 1
        if waits == 3:
            servers.append(await Renter(provider, UID, os.getuid()).serve(tmp_path / "s"))

    servers: list[asyncio.Server] = []
    assert await HandedProvisioner(tmp_path / "s", pause).launch(REQUEST) == MINE
    servers[0].close()
    assert provider.asked == [REQUEST]


async def test_without_a_renter_nothing_is_known(tmp_path: Path) -> None:
    async def pause(_: float) -> None: ...

    with pytest.raises(DisagctlError) as caught:
        await HandedProvisioner(tmp_path / "s", pause).list([])
    assert caught.value.error_code == "renter_down"
