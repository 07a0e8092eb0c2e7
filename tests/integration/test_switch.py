"""Workers that change their role under load: in the same process, and nothing is lost or made twice, whatever is killed."""

import os
import signal
from collections.abc import Iterator

import pytest

from disagctl.admin_client import admin
from disagctl.views import StatusView, WorkerView
from tests.integration.harness import Service, service

SEEDS = range(40)
SPEC = """
name: switching
model:
  id: synthetic
  stages:
    encode: {seconds: 0.02, out_bytes: 200000}
    denoise: {seconds: 0.1, steps: 5, out_bytes: 300001, load_s: 0.4, unpark_s: 0.1}
    decode: {seconds: 0.05, artifact_bytes: 200000, load_s: 0.4}
workload: {rate: 1/s, shapes: [{size: 64x64}]}
infra: local
policy: {scaling: static}
stages: {encode: {replicas: 1..6}, denoise: {replicas: 4..6}, decode: {replicas: 1..6}}
"""


@pytest.fixture(scope="module")
def switching(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with service(tmp_path_factory.mktemp("home"), SPEC) as running:
        yield running


@pytest.fixture(scope="module")
def expected(switching: Service) -> dict[int, bytes]:
    """What a run without switches makes."""
    return switching.images(SEEDS, "still")


def shift(running: Service, **counts: int) -> None:
    with admin(running.where) as client:
        assert client.post("/admin/v1/scale", json={"counts": counts}).status_code == 200


def settled(status: StatusView) -> bool:
    still = all(stage.ready == stage.desired and stage.draining == 0 for stage in status.stages)
    return still and len(status.workers) == sum(stage.desired for stage in status.stages)


def computing(stage: str, status: StatusView) -> bool:
    return any(view.stage == stage and view.busy > 0 for view in status.stages)


def by_pid(status: StatusView) -> dict[int, str]:
    return {worker.pid: worker.stage for worker in status.workers}


def test_switches_under_load_lose_nothing(switching: Service, expected: dict[int, bytes]) -> None:
    before = switching.until(settled)
    with switching.under_way(SEEDS, "shift") as pictures:
        switching.until(lambda s: computing("decode", s))
        shift(switching, denoise=2, decode=3)
        after = switching.until(settled)
        assert pictures.result() == expected
    assert by_pid(after).keys() == by_pid(before).keys(), "the same processes"
    assert sum(by_pid(after)[pid] != stage for pid, stage in by_pid(before).items()) == 2, "and as few as can be"
    assert after.loop is not None
    assert after.loop.switches >= 2
    done = before.requests.succeeded + len(SEEDS)
    assert switching.until(settled).requests.succeeded == done, "each has exactly one result"


def test_back_again_with_the_weights_still_there(switching: Service, expected: dict[int, bytes]) -> None:
    switching.until(settled)
    with switching.under_way(SEEDS, "back") as pictures:
        switching.until(lambda s: computing("denoise", s))
        shift(switching, denoise=4, decode=1)
        status = switching.until(settled)
        assert pictures.result() == expected
    denoise = next(stage for stage in status.stages if stage.stage == "denoise")
    assert denoise.unpark_s is not None, "they came from the host's memory"


@pytest.mark.parametrize("head_too", [False, True])
def test_one_killed_between_two_roles(switching: Service, expected: dict[int, bytes], head_too: bool) -> None:
    before = switching.until(settled).requests.succeeded

    def between(status: StatusView) -> list[WorkerView]:
        return [worker for worker in status.workers if worker.state == "switching"]

    with switching.under_way(SEEDS, f"killed-{head_too}") as pictures:
        switching.until(lambda s: computing("decode", s))
        shift(switching, denoise=3, decode=2)
        victims = between(switching.until(lambda s: bool(between(s))))
        os.kill(victims[0].pid, signal.SIGKILL)
        if head_too:
            switching.kill_head()
            switching.up()
        assert pictures.result() == expected
    after = switching.until(settled)
    assert {s.stage: s.ready for s in after.stages} == {"encode": 1, "denoise": 3, "decode": 2}
    assert after.requests.succeeded == before + len(SEEDS), "each has exactly one result"
    shift(switching, denoise=4, decode=1)
    switching.until(settled)
