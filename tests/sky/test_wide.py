"""A denoiser on two GPUs of one node: planned, rented, started, and again once its machine has died."""

from pathlib import Path
from typing import Any

import pytest

from tests.sky.shop import CATALOG, PROFILES, Shop, local_spec
from tests.sky.slurm import Slurm

pytestmark = [pytest.mark.timeout(1500), pytest.mark.usefixtures("healthy"), pytest.mark.slow]

PAIR = CATALOG.replace("slurm,skytest,node,H100,1,2.5,,1", "slurm,skytest,node,H100,2,5.0,,1")
ROW = "shapes,denoise,H100,32,32,1,20,0.8,0.5,measured,10,2"
SEEDS = range(8)


def profiles() -> str:
    """The shop's rows, and one of two GPUs."""
    head, *rows = PROFILES.splitlines()
    return "\n".join([f"{head},gpus", *(f"{row},1" for row in rows), ROW]) + "\n"


def settled(status: dict[str, Any]) -> bool:
    return status["state"] == "ready" and all(node["state"] == "up" for node in status["nodes"])


def denoiser(status: dict[str, Any]) -> dict[str, Any]:
    (found,) = [worker for worker in status["workers"] if worker["stage"] == "denoise"]
    return dict(found)


@pytest.fixture
def expected(tmp_path: Path) -> dict[int, bytes]:
    """What the same model makes on this machine, in one process a stage."""
    here = Shop("local-shop", tmp_path / "local")
    here.spec = Path(local_spec(here.folder)["path"])
    here.up()
    try:
        return here.pictures(SEEDS, "local")
    finally:
        assert here.down().returncode == 0


def test_two_gpus_make_the_very_pictures_also_on_a_machine_that_came_later(
    slurm: Slurm, tmp_path: Path, expected: dict[int, bytes]
) -> None:
    shop = Shop("wide", tmp_path / "wide", catalog=PAIR, profiles=profiles(), denoise="[H100]")
    text = shop.spec.read_text()
    shop.spec.write_text(text.replace("{accelerators: [H100]}", "{accelerators: [H100]}, gpus_per_replica: 2"))
    shop.up()
    try:
        worker = denoiser(shop.until(settled))
        assert (worker["gpus"], worker["on_gpus"]) == (2, [0, 1])
        assert shop.status()["loop"]["off"] == "denoise has 2 GPUs a worker"
        assert shop.pictures(SEEDS, "two") == expected
        node = next(one for one in shop.status()["nodes"] if one["id"] == worker["node"])
        slurm.kill_node(next(job.split()[1] for job in slurm.jobs() if node["provider_id"] in job))
        status = shop.until(lambda now: settled(now) and node["id"] not in {one["id"] for one in now["nodes"]}, 600)
        assert denoiser(status)["on_gpus"] == [0, 1]
        assert shop.pictures(SEEDS, "again") == expected
    finally:
        assert shop.down().returncode == 0
    assert [job for job in slurm.jobs() if "dis-" in job] == []
