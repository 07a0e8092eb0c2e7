"""What comes between an ``up`` and its end on the simulated Slurm: kills, full rooms, a second thought."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.sky.shop import QUICK, Shop, whole
from tests.sky.slurm import Slurm

pytestmark = [pytest.mark.timeout(1500), pytest.mark.usefixtures("healthy"), pytest.mark.slow]

FOUR = {"n1", "n2", "n3", "n4"}


@pytest.fixture
def quick(tmp_path: Path, slurm: Slurm) -> Iterator[Shop]:
    """A service that loads nothing, not yet up; whatever it has is taken away in the end."""
    shop = Shop("quick", tmp_path, model=QUICK)
    yield shop
    if (shop.home / "services" / shop.name).exists():
        done = shop.down()
        assert done.returncode == 0, done.stderr
    assert [job for job in slurm.jobs() if "dis-" in job] == []


def test_a_head_killed_during_a_launch(quick: Shop, slurm: Slurm) -> None:
    assert quick.cli("up", str(quick.spec), "-y", "--no-wait").returncode == 0
    quick.until(lambda status: any(node["state"] == "launching" for node in status["nodes"]))
    os.kill(quick.record["head_pid"], signal.SIGKILL)
    assert quick.status()["state"] == "head_down"
    quick.up()
    status = quick.until(whole)
    assert {node["id"] for node in status["nodes"]} == FOUR, "the machines are those that the first head asked for"
    assert len([job for job in slurm.jobs() if "dis-" in job]) == 4


def test_no_capacity_falls_back_and_says_so(quick: Shop, slurm: Slurm) -> None:
    slurm.drain("a100-1")
    quick.up()
    rented = ["H100:1", "H100:1", "L4:1", "L4:1"]  # agents may talk before SkyPilot says which machines they are on
    status = quick.until(lambda s: whole(s) and sorted(node["offer"].split()[-1] for node in s["nodes"]) == rented)
    assert status["usd_per_hour"] == pytest.approx(6.4)
    (said,) = quick.events("fall_back")
    assert "A100" in said


def test_nothing_fits(quick: Shop, slurm: Slurm) -> None:
    slurm.drain("a100-1", "h100-1", "h100-2")
    done = quick.cli("up", str(quick.spec), "-y")
    assert done.returncode == 4, done.stderr
    assert "tried" in done.stderr
    assert not (quick.home / "services" / quick.name).exists()


def test_an_up_that_is_interrupted_and_then_taken_down_leaves_nothing(quick: Shop, slurm: Slurm) -> None:
    process = quick.start("up", str(quick.spec), "-y")
    quick.until(lambda status: len(status.get("nodes", ())) == 4)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    os.kill(quick.record["head_pid"], signal.SIGKILL)  # and nobody is there to do it for us
    assert quick.down().returncode == 0
    assert [job for job in slurm.jobs() if "dis-" in job] == []


def test_money_is_asked_for(quick: Shop) -> None:
    done = quick.cli("up", str(quick.spec))
    assert done.returncode == 2
    assert "$5.40/h" in done.stderr
    assert quick.cli("up", str(quick.spec), "-y", "--budget", "5").returncode == 5
    assert not (quick.home / "services" / quick.name).exists()
