"""One Slurm and one EC2 for all tests of a run; a Slurm that somebody brought up by hand is used and left up."""

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.sky.ec2 import Ec2
from tests.sky.ec2_hosts import GATEWAY
from tests.sky.rented import Rented, Welcome
from tests.sky.site import Site
from tests.sky.slurm import Slurm


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Every test of this folder is marked: for the Slurm where it does not say the EC2."""
    for item in items:
        if Path(__file__).parent not in item.path.parents:
            continue
        if item.get_closest_marker("sky_ec2") is None:
            item.add_marker(pytest.mark.sky)
        # SkyPilot's client starts its API server as a child that outlives it, also a second time when a busy one is slow
        item.add_marker(pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"))


def need(reason: str | None) -> None:
    """Skip where it cannot run, and fail where somebody insists on it (DISAGCTL_TEST_SKY_REQUIRED=1, as CI does)."""
    if reason is None:
        return
    if os.environ.get("DISAGCTL_TEST_SKY_REQUIRED"):
        pytest.fail(f"it has to run here, and cannot: {reason}")
    pytest.skip(reason)


@pytest.fixture(scope="session")
def sky_environment() -> Iterator[None]:
    """SkyPilot in this very process uses the site: set before it is first imported, because it looks only once."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in Site().environment().items():
            patch.setenv(name, value)
        yield


@pytest.fixture(scope="session")
def slurm(sky_environment: None) -> Iterator[Slurm]:
    """A running Slurm whose nodes all take jobs."""
    need(Slurm.why_not())
    found = Slurm(Site())
    ours = not found.is_up()
    found.up()
    yield found
    if ours:
        found.down()


@pytest.fixture
def healthy(slurm: Slurm) -> Iterator[Slurm]:
    """The same, mended after the test."""
    yield slurm
    slurm.mend()


@pytest.fixture(scope="session")
def ec2_session(sky_environment: None) -> Iterator[Ec2]:
    """A running EC2."""
    need(Ec2.why_not())
    found = Ec2(Site())
    ours = not found.is_up()
    found.up()
    yield found
    if ours:
        found.down()


@pytest.fixture
def ec2(ec2_session: Ec2) -> Iterator[Ec2]:
    """The same, with room for everything."""
    ec2_session.capacity()
    yield ec2_session
    ec2_session.capacity()


@pytest.fixture
async def rented_there(ec2: Ec2, tmp_path: Path) -> AsyncIterator[Rented]:
    """A provisioner on the EC2; everything it rented is ended."""
    head = Welcome(GATEWAY)
    found = Rented(tmp_path, head)
    yield found
    for handle in await found.provisioner.list([]):
        await found.provisioner.release(handle)
    head.close()
