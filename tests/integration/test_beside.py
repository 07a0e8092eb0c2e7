"""Two models on four rented GPUs, for which this machine stands in: ``trident`` has stages share GPUs, and the head does it."""

from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest

from disagctl.planning.deploy import deploy
from disagctl.spec import load_spec
from disagctl.views import StatusView
from planner.run.rent import Deployment
from planner.run.seating import Seating
from tests.integration.harness import Service, service
from tests.integration.test_placement import denoisers, placements, settled

SEEDS = range(12)
CATALOG = """cloud,region,instance_type,accelerator,count,price,spot_price,max_nodes
slurm,here,node,H100,4,10,,1
"""
STAGES = """
      denoise: {seconds_per_step: 0.1, out_bytes: 100000, load_s: 0.2, weights_gib: 40}
      decode: {seconds: 0.01, artifact_bytes: 100000, load_s: 0.2, weights_gib: 10}
"""
GIB = {"denoise": 40, "decode": 10}
SPEC = f"""
name: beside
models:
  - name: first
    id: synthetic
    stages: {STAGES}
    workload: {{rate: 30/min, shapes: [{{size: 64x64, steps: 10}}]}}
  - name: second
    id: synthetic
    stages: {STAGES}
    workload: {{rate: 1/min, shapes: [{{size: 64x64, steps: 10}}]}}
policy: {{dispatch: trident, interval: 250ms}}
stages: {{decode: {{replicas: 1}}, denoise: {{replicas: 1..3}}}}
budget: {{max_usd_per_hour: 10}}
bundles: false
"""


def rented(folder: Path) -> Deployment:
    """What the planner has for it: one node, a stage a GPU."""
    (folder / "catalog.csv").write_text(CATALOG)
    path = folder / "service.yaml"
    path.write_text(SPEC + "infra: slurm/here\ncatalog: catalog.csv\n")
    made = deploy(load_spec(path), path, None, (), nullcontext)[1]
    assert made.seating == Seating({"H100": dict.fromkeys(made.wanted, 1)})
    return made


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    made = rented(tmp_path_factory.mktemp("plan"))
    with service(tmp_path_factory.mktemp("home"), SPEC + "infra: local\n", deployment=made) as up:
        yield up


@pytest.fixture(scope="module")
def shifted(running: Service) -> dict[int, bytes]:
    """Pictures of the model that has little to do, many at once."""
    running.until(settled)
    with running.under_way(SEEDS, "shifted", model="second", num_inference_steps=10) as pictures:
        running.until(lambda status: denoisers(status)["second"] == 3)
        return pictures.result()


def gpus(status: StatusView) -> dict[int, list[str]]:
    """What each GPU holds."""
    found: dict[int, list[str]] = {}
    for worker in status.workers:
        assert worker.gpu is not None
        found.setdefault(worker.gpu, []).append(f"{worker.model}.{worker.stage}")
    return found


def roles(status: StatusView) -> dict[str, tuple[int, str, str]]:
    """Every process, and what it is."""
    return {worker.id: (worker.pid, worker.model, worker.stage) for worker in status.workers}


def test_a_stage_that_waits_gets_a_process_beside_another(running: Service, shifted: dict[int, bytes]) -> None:
    after = running.until(settled)
    first = next(why for why in placements(after) if "second.denoise" in why)
    assert "second.denoise beside" in first
    held = gpus(after)
    assert max(map(len, held.values())) > 1
    assert all(len(set(some)) == len(some) for some in held.values()), "never two of a kind on one"
    assert all(sum(GIB[one.partition(".")[2]] for one in some) <= 80 for some in held.values())
    assert {stage.desired for stage in after.stages if stage.stage == "decode"} == {1}
    assert after.requests.succeeded == len(SEEDS)
    assert after.loop is not None
    assert set(after.loop.decisions) <= {"load", "placement"}, "the loop moved nobody besides"


def test_a_new_head_goes_on_with_processes_as_they_were_placed(running: Service, shifted: dict[int, bytes]) -> None:
    before = running.until(lambda status: settled(status) and denoisers(status)["second"] == 3)
    with running.under_way(SEEDS, "again", model="second", num_inference_steps=10) as pictures:
        running.kill_head()
        running.up()
        assert pictures.result() == shifted
    after = running.until(settled)
    assert roles(after) == roles(before), "the same processes in the same roles"
    assert after.requests.succeeded == before.requests.succeeded + len(SEEDS)


def test_where_two_would_not_fit_one_that_shares_its_gpu_changes(running: Service, shifted: dict[int, bytes]) -> None:
    before = running.until(settled)
    with running.under_way(SEEDS, "back", model="first", num_inference_steps=10) as pictures:
        running.until(lambda status: denoisers(status) == {"first": 3, "second": 1})
        assert pictures.result() == shifted, "the two models make the same pictures"
    after = running.until(settled)
    assert {worker.pid for worker in after.workers} == {worker.pid for worker in before.workers}
    assert any("first.denoise instead of second.denoise" in why for why in placements(after))
    held = gpus(after)
    assert any("first.denoise" in some and len(some) > 1 for some in held.values())
    assert all(sum(GIB[one.partition(".")[2]] for one in some) <= 80 for some in held.values())
    assert after.requests.succeeded == before.requests.succeeded + len(SEEDS)
