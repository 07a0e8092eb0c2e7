"""Short requests that come during long ones are served at once, and the long ones lose nothing, not even with a worker."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from disagctl.admin_client import admin
from disagctl.views import StatusView
from tests.integration.harness import Service, service

SPEC = """
name: preempt
model:
  id: synthetic
  stages:
    encode: {seconds: 0.01, out_bytes: 100000}
    denoise: {seconds_per_step: 0.25, out_bytes: 100000}
    decode: {seconds: 0.01}
workload:
  rate: 1/s
  shapes:
    - {share: 0.8, size: 8x8, slo: {p95: 60s}}
    - {share: 0.1, size: 64x64, slo: {p95: 600s}}
    - {share: 0.1, size: 128x128, slo: {p95: 6000s}}
infra: local
policy: {dispatch: edf, scaling: static}
stages: {denoise: {replicas: 2}}
"""
LONG, MIDDLE, SHORT, URGENT = (
    {"size": size, "num_inference_steps": steps}
    for size, steps in (("128x128", 24), ("64x64", 3), ("8x8", 1), ("8x8", 10))
)
FAMILIES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "wan": ({"num_frames": 17, "num_inference_steps": 150, "size": "64x64"}, {"num_frames": 1, "size": "32x32"}),
    "flux": ({"num_inference_steps": 150, "size": "64x64"}, {"size": "32x32"}),
}
TINY = """
name: {family}-preempt
model: {{id: {folder}}}
workload:
  rate: 1/s
  shapes: [{{share: 0.9, size: 32x32, slo: {{p95: 300s}}}}, {{share: 0.1, size: 64x64, frames: {frames}, slo: {{p95: 3000s}}}}]
infra: local
policy: {{dispatch: edf, scaling: static}}
stages: {{denoise: {{replicas: 2}}}}
"""


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with service(tmp_path_factory.mktemp("home"), SPEC) as made:
        yield made


@pytest.fixture(scope="module")
def client(running: Service) -> Iterator[httpx.Client]:
    with admin(running.where, timeout_s=60.0) as made:
        yield made


@pytest.fixture(scope="module")
def quiet(client: httpx.Client) -> list[bytes]:
    """What two long requests make when nobody disturbs them."""
    jobs = [post(client, seed, **LONG) for seed in (1, 2)]
    return [content(client, job) for job in jobs]


def post(client: httpx.Client, seed: int, **fields: Any) -> str:
    answer = client.post("/admin/v1/requests", json={"prompt": "a cat", "seed": seed, **fields}).json()
    assert "id" in answer, answer
    return str(answer["id"])


def view(client: httpx.Client, job: str, wait_s: float = 0.0) -> dict[str, Any]:
    answer = client.get(f"/admin/v1/requests/{job}", params={"wait_s": wait_s} if wait_s else {}).json()
    assert isinstance(answer, dict)
    return answer


def content(client: httpx.Client, job: str) -> bytes:
    """Of the finished request."""
    while (ended := view(client, job, 30.0))["status"] in ("queued", "running"):
        pass
    assert ended["status"] == "succeeded", ended
    return client.get(f"/admin/v1/requests/{job}/content").content


def computing(count: int) -> Callable[[StatusView], bool]:
    """So many denoise workers compute."""
    return lambda status: any(s.stage == "denoise" and round(s.busy * s.ready) == count for s in status.stages)


def paused_more(before: StatusView) -> Callable[[StatusView], bool]:
    return lambda status: status.requests.pauses > before.requests.pauses


def test_short_requests_do_not_wait_for_long_ones(running: Service, client: httpx.Client, quiet: list[bytes]) -> None:
    jobs = [post(client, seed, **LONG) for seed in (1, 2)]
    before = running.until(computing(2))
    steps = [view(client, job)["step"] for job in jobs]
    content(client, post(client, 11, **SHORT))
    now = [view(client, job) for job in jobs]
    assert {job["stage"] for job in now} == {"denoise"}
    advanced = [job["step"] - step for job, step in zip(now, steps, strict=True)]
    assert min(advanced) <= 2, f"the one that gave way went {advanced} steps meanwhile"
    assert paused_more(before)(running.status())
    assert [content(client, job) for job in jobs] == quiet
    classes = {one.shape: one for one in running.status().classes}
    assert classes["8x8 1 steps"].objective_s == 60.0
    assert classes["8x8 1 steps"].slo_attainment == 1.0


def test_a_paused_request_goes_on_elsewhere(running: Service, client: httpx.Client, quiet: list[bytes]) -> None:
    long = post(client, 1, **LONG)
    running.until(computing(1))
    middle = post(client, 21, **MIDDLE)
    before = running.until(computing(2))
    urgent = post(client, 22, **URGENT)  # takes the place of the long one, which goes on where the middle one is over
    running.until(paused_more(before))
    content(client, middle)
    assert content(client, long) == quiet[0]
    content(client, urgent)
    workers = {worker.id for worker in running.workers("denoise")}
    assert any({route.source, route.target} <= workers for route in running.status().routes)


def test_a_paused_request_survives_its_worker(running: Service, client: httpx.Client, quiet: list[bytes]) -> None:
    jobs = [post(client, seed, **LONG) for seed in (1, 2)]
    before = running.until(computing(2))
    urgent = post(client, 31, **URGENT)
    running.until(paused_more(before))
    for index in (0, 1):  # one of them holds it
        running.kill_worker("denoise", index)
    assert [content(client, job) for job in jobs] == quiet
    content(client, urgent)


@pytest.mark.families
@pytest.mark.timeout(900)
@pytest.mark.parametrize("family", FAMILIES)
def test_real_models_paused_moved_and_killed(tmp_path: Path, tiny_model: Callable[[str], Path], family: str) -> None:
    """Four workers: two denoise long requests when short ones come; then the workers die while one is paused."""
    long, short = FAMILIES[family]
    text = TINY.format(family=family, folder=tiny_model(family), frames=long.get("num_frames", 1))
    with service(tmp_path, text, 400.0) as running, admin(running.where, timeout_s=60.0) as client:
        expected = [content(client, post(client, seed, **long)) for seed in (1, 2)]
        apart = content(client, post(client, 3, **short))
        for kills in (0, 2):
            jobs = [post(client, seed, **long) for seed in (1, 2)]
            before = running.until(computing(2))
            first = post(client, 3, **short)
            running.until(paused_more(before))
            for index in range(kills):
                running.kill_worker("denoise", index)
            assert content(client, first) == apart
            if not kills:
                assert any(view(client, job)["status"] == "running" for job in jobs)
            assert [content(client, job) for job in jobs] == expected
