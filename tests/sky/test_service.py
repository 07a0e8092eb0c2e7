"""A service on the simulated Slurm, from the command line: what ``up`` promises, and what becomes of it when things break."""

import json
import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.sky.shop import QUICK, Shop, local_spec
from tests.sky.slurm import Slurm

pytestmark = [pytest.mark.timeout(1500), pytest.mark.usefixtures("healthy"), pytest.mark.slow]

SEEDS = range(30)
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


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[int, bytes]:
    """What the same model makes on this machine."""
    folder = tmp_path_factory.mktemp("local")
    shop = Shop("local-shop", folder)
    shop.spec = Path(local_spec(folder)["path"])
    shop.up()
    try:
        return shop.pictures(SEEDS, "local")
    finally:
        assert shop.down().returncode == 0


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory, slurm: Slurm) -> Iterator[Shop]:
    """The quickstart's model on four machines; they are gone in the end, and ``down`` says so."""
    made = Shop("shop", tmp_path_factory.mktemp("shop"))
    made.up()
    yield made
    done = made.down()
    assert done.returncode == 0, done.stderr
    assert [job for job in slurm.jobs() if "dis-" in job] == []


def up_nodes(status: dict[str, Any]) -> list[dict[str, Any]]:
    """Machines that are there."""
    return [node for node in status["nodes"] if node["state"] == "up"]


def whole(status: dict[str, Any]) -> bool:
    """Ready, on as many machines as were wished for."""
    return status["state"] == "ready" and len(up_nodes(status)) == 4 == len(status["nodes"])


def test_the_plan_is_real_and_makes_the_very_pictures(shop: Shop, expected: dict[int, bytes]) -> None:
    status = shop.until(whole)
    assert sorted(node["accelerator"] for node in status["nodes"]) == ["A100", "H100", "L4", "L4"]
    assert status["usd_per_hour"] == pytest.approx(5.4)
    kinds = {node["id"]: node["accelerator"] for node in status["nodes"]}
    assert {(w["stage"], kinds[w["node"]]) for w in status["workers"]} == {
        ("encode", "L4"), ("denoise", "H100"), ("denoise", "A100"), ("decode", "L4"),
    }  # fmt: skip
    assert shop.pictures(SEEDS, "slurm") == expected


def test_up_again_changes_nothing(shop: Shop) -> None:
    before = {node["id"] for node in shop.until(whole)["nodes"]}
    assert shop.up().stdout.strip() == shop.status()["endpoint"]
    assert {node["id"] for node in shop.status()["nodes"]} == before


def test_what_it_cost(shop: Shop) -> None:
    cost = json.loads(shop.cli("cost", shop.name, "-o", "json").stdout)
    assert {stage["stage"] for stage in cost["stages"]} == {"shapes.encode", "shapes.denoise", "shapes.decode"}
    assert sum(stage["usd"] for stage in cost["stages"]) == pytest.approx(cost["usd_total"])
    assert cost["usd_total"] > 0


def test_a_machine_killed_under_load(shop: Shop, slurm: Slurm, expected: dict[int, bytes]) -> None:
    node = next(n for n in shop.until(whole)["nodes"] if n["accelerator"] == "H100")
    host = next(job.split()[1] for job in slurm.jobs() if node["provider_id"] in job)
    with ThreadPoolExecutor(1) as pool:
        pictures = pool.submit(shop.pictures, SEEDS, f"killed-{time.time()}")
        shop.until(lambda status: status["requests"]["running"] > 0)
        slurm.kill_node(host)
        assert pictures.result() == expected
    status = shop.until(lambda s: whole(s) and node["id"] not in {n["id"] for n in s["nodes"]}, 600)
    assert any(why.startswith(f"{node['id']}: no word from its agent for 5 s") for why in shop.events("node_silent"))
    assert status["requests"]["failed"] == 0


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
