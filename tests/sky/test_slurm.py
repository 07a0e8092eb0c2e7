"""SkyProvisioner on the Slurm: what it makes, what it makes of a full cluster, and that nothing stays."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from planner.domain import Offer
from tests.sky.rented import Rented, Welcome
from tests.sky.slurm import Slurm
from tests.sky.slurm_conf import CLUSTER

pytestmark = [pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def head() -> Iterator[Welcome]:
    """For all tests."""
    found = Welcome("127.0.0.1")
    yield found
    found.close()


def offer(gpu: str, count: int = 1) -> Offer:
    """What a catalog says of one GPU of this Slurm."""
    return Offer("slurm", CLUSTER, "node", gpu, count, spot=False, usd_per_hour=1.0)


@pytest.fixture
async def rented(healthy: Slurm, head: Welcome, tmp_path: Path) -> AsyncIterator[Rented]:
    """Everything it rented is ended."""
    found = Rented(tmp_path, head)
    yield found
    for handle in await found.provisioner.list([]):
        await found.provisioner.release(handle)


async def test_two_nodes_come_up_side_by_side_and_go(rented: Rented, healthy: Slurm) -> None:
    asked = await asyncio.gather(rented.launch(offer("L4")), rented.launch(offer("H100"), node="n2"))
    up = await asyncio.gather(*(rented.settled(handle) for handle in asked))
    assert [handle.state for handle in up] == ["up", "up"], up
    assert [(handle.offer.accelerator, handle.offer.count) for handle in up if handle.offer] == [("L4", 1), ("H100", 1)]
    assert len(rented.jobs(healthy)) == 2
    assert not list(rented.work.glob("nodes/*/*")), "the agents' tokens stay nowhere on the head"

    restarted = rented.again()
    assert {handle.node for handle in await restarted.list([])} == {"n1", "n2"}, "found by their names alone"
    known = await restarted.list(up)
    assert [handle.state for handle in known] == ["up", "up"]

    await asyncio.gather(*(restarted.release(handle) for handle in known))
    assert [handle.state for handle in await restarted.list(known)] == ["gone", "gone"]
    assert rented.jobs(healthy) == []


async def test_no_capacity_falls_back_to_the_next_offer(rented: Rented, healthy: Slurm) -> None:
    healthy.drain("h100-1", "h100-2")
    up = await rented.settled(await rented.launch(offer("H100"), offer("A100")))
    assert up.state == "up", up
    assert up.offer is not None
    assert up.offer.accelerator == "A100"


async def test_no_capacity_anywhere_says_what_was_tried(rented: Rented, healthy: Slurm) -> None:
    healthy.drain("h100-1", "h100-2", "a100-1")
    failed = await rented.settled(await rented.launch(offer("H100"), offer("A100")))
    assert (failed.state, failed.failure) == ("failed", "no_capacity"), failed
    assert len(failed.tried) == 2, failed.tried
    assert await rented.provisioner.list([]) == []


async def test_what_no_place_has_is_impossible(rented: Rented) -> None:
    failed = await rented.settled(await rented.launch(offer("H100", 64)))
    assert (failed.state, failed.failure) == ("failed", "impossible"), failed
    assert failed.tried == ()


async def test_the_same_intent_twice_is_one_machine(rented: Rented, healthy: Slurm) -> None:
    request = rented.request(offer("L4"))
    first = await rented.provisioner.launch(request)
    again = await rented.again().launch(request)
    assert again.request_id == first.request_id
    await rented.provisioner.release(first)  # a launch under way
    assert await rented.again().list([]) == []
    assert rented.jobs(healthy) == []


async def test_a_dead_machine_is_gone(rented: Rented, healthy: Slurm) -> None:
    up = await rented.settled(await rented.launch(offer("A100")))
    assert up.state == "up", up
    healthy.kill_node("a100-1")
    lost = await rented.changed(up, "up")
    assert lost.state == "gone"
