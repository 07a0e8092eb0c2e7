"""SkyProvisioner on the simulated EC2: zones and regions without room, spot, preemption, tags, and that nothing stays."""

import pytest

from planner.domain import Offer
from tests.sky.ec2 import Ec2
from tests.sky.rented import Rented

pytestmark = [pytest.mark.sky_ec2, pytest.mark.timeout(900)]

EAST = Offer("aws", "us-east-1", "g6.xlarge", "L4", 1, spot=True, usd_per_hour=0.32)
WEST = Offer("aws", "us-west-2", "g6.xlarge", "L4", 1, spot=False, usd_per_hour=0.85)


async def test_a_preempted_machine_is_gone_and_another_zone_has_the_next(ec2: Ec2, rented_there: Rented) -> None:
    up = await rented_there.settled(await rented_there.launch(EAST))
    assert up.state == "up", up
    assert up.offer is not None
    assert (up.offer.region, up.offer.spot) == ("us-east-1", True)
    ((instance, zone),) = ec2.running().items()
    assert ec2.tags(instance)["disagctl-service"] == rented_there.uid

    ec2.capacity(**{f"* {zone}/*": 0})
    ec2.preempt(instance)
    lost = await rented_there.changed(up, "up")
    assert lost.state == "gone"

    again = await rented_there.settled(await rented_there.launch(EAST, node="n2"))
    assert again.state == "up", again
    assert set(ec2.running().values()).isdisjoint({zone})
    await rented_there.provisioner.release(again)
    assert ec2.running() == {}


async def test_no_room_in_a_region_falls_back_to_the_next_offer(ec2: Ec2, rented_there: Rented) -> None:
    ec2.capacity(**{"spot us-east-1?/*": 0})
    up = await rented_there.settled(await rented_there.launch(EAST, WEST))
    assert up.state == "up", up
    assert up.offer is not None
    assert (up.offer.region, up.offer.spot) == ("us-west-2", False)


async def test_no_room_anywhere_says_what_was_tried(ec2: Ec2, rented_there: Rented) -> None:
    ec2.capacity(**{"*/g6.xlarge": 0})
    failed = await rented_there.settled(await rented_there.launch(EAST, WEST))
    assert (failed.state, failed.failure) == ("failed", "no_capacity"), failed
    for place in ("us-east-1b", "us-east-1c", "us-west-2"):  # the spot offer's zones, then the other region
        assert any(place in line for line in failed.tried), failed.tried
    assert ec2.running() == {}
