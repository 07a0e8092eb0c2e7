"""RELIABILITY 1–3, 8, 13: whatever is killed, every accepted request has one result, and the very same one."""

import os
import signal
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from disagctl.admin_client import admin
from disagctl.views import StatusView
from tests.integration.harness import Service

SEEDS = range(40)


@pytest.fixture(scope="module")
def expected(synthetic: Service) -> dict[int, bytes]:
    """What a run without faults makes."""
    made = synthetic.images(SEEDS, "fault-free")
    assert len(set(made.values())) == len(SEEDS), "every seed has a picture of its own"
    return made


def all_there(status: StatusView) -> bool:
    """Every worker is back."""
    return all(stage.ready == stage.desired for stage in status.stages)


def computing(stage: str, status: StatusView) -> bool:
    """Whether a worker of the stage computes."""
    return any(view.stage == stage and view.busy > 0 for view in status.stages)


@pytest.mark.parametrize("stage", ["encode", "denoise", "decode"])
def test_a_killed_worker_loses_nothing(synthetic: Service, expected: dict[int, bytes], stage: str) -> None:
    before = synthetic.until(all_there).requests.succeeded
    with synthetic.under_way(SEEDS, f"kill-{stage}") as pictures:
        synthetic.until(lambda s: computing(stage, s))
        synthetic.kill_worker(stage)
        assert pictures.result() == expected
    assert synthetic.status().requests.succeeded == before + len(SEEDS), "each has exactly one result"


def test_one_of_each_stage_and_then_all_of_one(synthetic: Service, expected: dict[int, bytes]) -> None:
    synthetic.until(all_there)
    with synthetic.under_way(SEEDS, "many") as pictures:
        synthetic.until(lambda s: computing("decode", s))
        for stage in ("encode", "denoise", "decode"):
            synthetic.kill_worker(stage)
        synthetic.until(lambda s: computing("denoise", s))
        for worker in synthetic.workers("denoise"):
            os.kill(worker.pid, signal.SIGKILL)
        assert pictures.result() == expected


def test_head_killed_and_started_again(synthetic: Service, expected: dict[int, bytes]) -> None:
    synthetic.until(all_there)
    pids = {w.pid for w in synthetic.status().workers}
    port = synthetic.record.http_port
    with synthetic.under_way(SEEDS, "head") as pictures:
        synthetic.until(lambda s: computing("decode", s))
        synthetic.kill_head()
        synthetic.up()
        assert pictures.result() == expected
    assert synthetic.record.http_port == port
    assert {w.pid for w in synthetic.status().workers} == pids, "the workers outlived the head"


def test_agent_killed(synthetic: Service, expected: dict[int, bytes]) -> None:
    synthetic.until(all_there)
    agent = next(p for p in synthetic.processes() if "stages.agent" in p.cmdline())
    with synthetic.under_way(SEEDS, "agent") as pictures:
        synthetic.until(lambda s: computing("denoise", s))
        agent.kill()
        assert pictures.result() == expected
    assert len(synthetic.until(all_there).nodes) == 1


def test_a_stopped_worker_costs_time_and_comes_back(synthetic: Service, expected: dict[int, bytes]) -> None:
    before = synthetic.until(all_there).requests.succeeded
    with synthetic.under_way(SEEDS, "stopped") as pictures:
        synthetic.until(lambda s: computing("denoise", s))
        victim = next((w for w in synthetic.workers("denoise") if w.busy), synthetic.workers("denoise")[0])
        os.kill(victim.pid, signal.SIGSTOP)
        try:
            assert pictures.result() == expected
        finally:
            os.kill(victim.pid, signal.SIGCONT)
    status = synthetic.until(all_there)
    assert status.requests.succeeded == before + len(SEEDS), "what it still had in hand made no second result"


def test_poison_is_contained(synthetic: Service) -> None:
    synthetic.until(all_there)
    with synthetic.under_way(range(20), "beside-poison") as good:
        body = {"prompt": "POISON", "size": "64x64"}
        answer = httpx.post(f"{synthetic.url}/v1/images/generations", json=body, timeout=120.0)
        assert len(good.result()) == 20
    assert answer.status_code == 500
    assert answer.json()["error"]["code"] == "dead_letter"
    assert "3 tries" in answer.json()["error"]["message"]


def test_cancelled_work_stops(synthetic: Service) -> None:
    synthetic.until(all_there)
    with admin(synthetic.where) as client:
        made = [client.post("/admin/v1/requests", json={"prompt": "x", "size": "64x64"}).json() for _ in range(10)]
        newest_first = reversed(made)  # a busy machine may be through with the others by now
        ended = [client.delete(f"/admin/v1/requests/{job['id']}").json()["status"] for job in newest_first]
    assert "cancelled" in ended
    assert set(ended) <= {"cancelled", "succeeded"}
    synthetic.until(lambda s: s.requests.running == s.requests.queued == 0)


def test_one_job_for_one_idempotency_key(synthetic: Service) -> None:
    before = synthetic.until(all_there).requests.accepted
    body = {"prompt": "x", "size": "64x64", "response_format": "url"}

    def post(client: httpx.Client) -> str:
        headers = {"Idempotency-Key": "same"}
        return str(client.post("/v1/images/generations", json=body, headers=headers).json()["id"])

    with httpx.Client(base_url=synthetic.url, timeout=60.0) as client, ThreadPoolExecutor(32) as pool:
        ids = set(pool.map(lambda _: post(client), range(100)))
    assert len(ids) == 1
    assert synthetic.status().requests.accepted == before + 1
