"""Two models on six workers: requests shift from one to the other, ``trident`` has weights moved, and the head moves them."""

from collections.abc import Iterator

import pytest

from disagctl.views import StatusView
from tests.integration.harness import Service, service

SEEDS = range(14)
SPEC = """
name: placement
models:
  - name: first
    id: synthetic
    stages:
      denoise: {seconds_per_step: 0.1, out_bytes: 100000, load_s: 0.2}
      decode: {seconds: 0.01, artifact_bytes: 100000, load_s: 0.2}
    workload: {rate: 60/min, shapes: [{size: 64x64, steps: 10}]}
  - name: second
    id: synthetic
    stages:
      denoise: {seconds_per_step: 0.1, out_bytes: 100000, load_s: 0.2}
      decode: {seconds: 0.01, artifact_bytes: 100000, load_s: 0.2}
    workload: {rate: 1/min, shapes: [{size: 64x64, steps: 10}]}
infra: local
policy: {dispatch: trident, workers: 6, interval: 250ms}
stages: {decode: {replicas: 1}, denoise: {replicas: 1..3}}
"""


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with service(tmp_path_factory.mktemp("home"), SPEC) as made:
        yield made


@pytest.fixture(scope="module")
def expected(running: Service) -> dict[int, bytes]:
    """The two models make the same pictures."""
    running.until(lambda status: settled(status) and denoisers(status) == {"first": 3, "second": 1})
    return running.images(SEEDS, "still", model="first", num_inference_steps=10)


def denoisers(status: StatusView) -> dict[str, int]:
    return {stage.model: stage.desired for stage in status.stages if stage.stage == "denoise"}


def settled(status: StatusView) -> bool:
    return all(stage.ready == stage.desired and not stage.draining for stage in status.stages)


def placements(status: StatusView) -> list[str]:
    return [event.why for event in status.events if event.kind == "placement"]


def test_workers_follow_the_requests_to_another_model(running: Service, expected: dict[int, bytes]) -> None:
    before = running.status()
    assert placements(before) == []
    with running.under_way(SEEDS, "shifted", model="second", num_inference_steps=10) as pictures:
        moved = running.until(lambda status: denoisers(status)["second"] > 1)
        (why,) = placements(moved)[:1]
        assert "second.denoise instead of first.denoise" in why
        assert pictures.result() == expected
    after = running.until(settled)
    assert {worker.pid for worker in after.workers} == {worker.pid for worker in before.workers}, "the same processes"
    assert sum(denoisers(after).values()) == 4, "and as many as before"
    assert min(denoisers(after).values()) >= 1, "the last of a role stays"
    assert after.requests.succeeded == before.requests.succeeded + len(SEEDS), "each has exactly one result"
    assert after.loop is not None
    assert set(after.loop.decisions) <= {"start", "placement"}, "the loop moved nobody besides"


def test_a_new_head_goes_on_with_workers_as_they_were_moved(running: Service, expected: dict[int, bytes]) -> None:
    before = running.until(lambda status: settled(status) and status.loop is not None and not status.loop.cooldown_s)
    assert denoisers(before)["second"] > 1
    with running.under_way(SEEDS, "back", model="first", num_inference_steps=10) as pictures:
        running.until(lambda status: settled(status) and denoisers(status)["first"] > denoisers(before)["first"])
        running.kill_head()
        running.up()
        assert pictures.result() == expected
    after = running.until(settled)
    assert denoisers(after)["first"] > denoisers(before)["first"]
    assert sum(denoisers(after).values()) == 4
    assert after.requests.succeeded == before.requests.succeeded + len(SEEDS)
