"""A service on the simulated Slurm, from the command line: what ``up`` promises, and what becomes of it when things break."""

import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.sky.shop import PROFILES, Shop, local_spec, whole
from tests.sky.slurm import Slurm

pytestmark = [pytest.mark.timeout(1500), pytest.mark.usefixtures("healthy"), pytest.mark.slow]

SEEDS = range(30)


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
    rows = PROFILES + "shapes,decode,A100,32,32,1,20,0.05,0.5,measured,10\n"
    made = Shop("shop", tmp_path_factory.mktemp("shop"), decode="[L4, A100]", profiles=rows)
    made.up()
    yield made
    done = made.down()
    assert done.returncode == 0, done.stderr
    assert [job for job in slurm.jobs() if "dis-" in job] == []


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


@contextmanager
def load(shop: Shop, expected: dict[int, bytes]) -> Iterator[None]:
    """Round after round of pictures meanwhile, each the very one; the last round ends after whatever is done meanwhile."""
    over, run = threading.Event(), f"load-{time.time()}"

    def rounds() -> int:
        done = 0
        while not over.is_set() or not done:
            assert shop.pictures(SEEDS, f"{run}-{done}") == expected
            done += 1
        return done

    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(rounds)
        try:
            yield
        finally:
            over.set()
        assert asked.result() > 0


def test_a_machine_changes_its_role_under_load(shop: Shop, expected: dict[int, bytes]) -> None:
    before = shop.status()
    with load(shop, expected):
        assert shop.cli("scale", shop.name, "denoise=1", "decode=2").returncode == 0
        status = shop.until(lambda s: ready(s) == {"encode": 1, "denoise": 1, "decode": 2})
    assert {node["id"] for node in status["nodes"]} == {node["id"] for node in before["nodes"]}, (
        "nothing is launched for it"
    )
    with load(shop, expected):
        assert shop.cli("scale", shop.name, "denoise=2", "decode=1").returncode == 0
        status = shop.until(lambda s: ready(s) == {"encode": 1, "denoise": 2, "decode": 1})
    assert status["requests"]["failed"] == 0


def ready(status: dict[str, Any]) -> dict[str, int]:
    """Workers that are ready, by stage."""
    return {stage["stage"]: stage["ready"] for stage in status["stages"]}


def test_a_machine_killed_under_load(shop: Shop, slurm: Slurm, expected: dict[int, bytes]) -> None:
    node = next(n for n in shop.until(whole)["nodes"] if n["accelerator"] == "H100")
    host = next(job.split()[1] for job in slurm.jobs() if node["provider_id"] in job)
    with load(shop, expected):
        slurm.kill_node(host)
        shop.until(lambda _: any(why.startswith(node["id"]) for why in shop.events("node_silent")))
    status = shop.until(lambda s: whole(s) and node["id"] not in {n["id"] for n in s["nodes"]}, 600)
    assert any(why.startswith(f"{node['id']}: no word from its agent for 5 s") for why in shop.events("node_silent"))
    assert status["requests"]["failed"] == 0
