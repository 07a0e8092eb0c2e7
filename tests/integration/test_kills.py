"""RELIABILITY 1–3, 8, 13: whatever is killed, every accepted request has one result, and the very same one."""

import asyncio
import os
import signal

import httpx
import pytest

from disagctl.admin_client import admin
from disagctl.views import StatusView
from tests.integration.harness import Service

SEEDS = range(40)


@pytest.fixture(scope="module")
def expected(synthetic: Service) -> dict[int, bytes]:
    """What a run without faults makes."""
    made = asyncio.run(synthetic.images(SEEDS, "fault-free"))
    assert len(set(made.values())) == len(SEEDS), "every seed has a picture of its own"
    return made


def all_there(status: StatusView) -> bool:
    """Every worker is back."""
    return all(stage.ready == stage.desired for stage in status.stages)


async def under_way(service: Service, stage: str) -> None:
    """Wait until the stage computes."""
    await asyncio.to_thread(service.until, lambda s: any(v.stage == stage and v.busy > 0 for v in s.stages))


@pytest.mark.parametrize("stage", ["encode", "denoise", "decode"])
def test_a_killed_worker_loses_nothing(synthetic: Service, expected: dict[int, bytes], stage: str) -> None:
    before = synthetic.until(all_there).requests.succeeded

    async def run() -> dict[int, bytes]:
        pictures = asyncio.create_task(synthetic.images(SEEDS, f"kill-{stage}"))
        await under_way(synthetic, stage)
        await asyncio.to_thread(synthetic.kill_worker, stage)
        return await pictures

    assert asyncio.run(run()) == expected
    assert synthetic.status().requests.succeeded == before + len(SEEDS), "each has exactly one result"


def test_one_of_each_stage_and_then_all_of_one(synthetic: Service, expected: dict[int, bytes]) -> None:
    synthetic.until(all_there)

    async def run() -> dict[int, bytes]:
        pictures = asyncio.create_task(synthetic.images(SEEDS, "many"))
        await under_way(synthetic, "decode")
        for stage in ("encode", "denoise", "decode"):
            await asyncio.to_thread(synthetic.kill_worker, stage)
        await under_way(synthetic, "denoise")
        for worker in await asyncio.to_thread(synthetic.workers, "denoise"):
            os.kill(worker.pid, signal.SIGKILL)
        return await pictures

    assert asyncio.run(run()) == expected


def test_head_killed_and_started_again(synthetic: Service, expected: dict[int, bytes]) -> None:
    synthetic.until(all_there)
    pids = {w.pid for w in synthetic.status().workers}
    port = synthetic.record.http_port

    async def run() -> dict[int, bytes]:
        pictures = asyncio.create_task(synthetic.images(SEEDS, "head"))
        await under_way(synthetic, "decode")
        await asyncio.to_thread(synthetic.kill_head)
        await asyncio.to_thread(synthetic.up)
        return await pictures

    assert asyncio.run(run()) == expected
    assert synthetic.record.http_port == port
    assert {w.pid for w in synthetic.status().workers} == pids, "the workers outlived the head"


def test_agent_killed(synthetic: Service, expected: dict[int, bytes]) -> None:
    synthetic.until(all_there)
    agent = next(p for p in synthetic.processes() if "stages.agent" in p.cmdline())

    async def run() -> dict[int, bytes]:
        pictures = asyncio.create_task(synthetic.images(SEEDS, "agent"))
        await under_way(synthetic, "denoise")
        agent.kill()
        return await pictures

    assert asyncio.run(run()) == expected
    assert len(synthetic.until(all_there).nodes) == 1


def test_a_stopped_worker_costs_time_and_comes_back(synthetic: Service, expected: dict[int, bytes]) -> None:
    before = synthetic.until(all_there).requests.succeeded

    async def run() -> dict[int, bytes]:
        pictures = asyncio.create_task(synthetic.images(SEEDS, "stopped"))
        await under_way(synthetic, "denoise")
        victim = next(w for w in await asyncio.to_thread(synthetic.workers, "denoise") if w.busy)
        os.kill(victim.pid, signal.SIGSTOP)
        try:
            return await pictures
        finally:
            os.kill(victim.pid, signal.SIGCONT)

    assert asyncio.run(run()) == expected
    status = synthetic.until(all_there)
    assert status.requests.succeeded == before + len(SEEDS), "what it still had in hand made no second result"
    assert status.requests.redelivered > 0


def test_poison_is_contained(synthetic: Service) -> None:
    synthetic.until(all_there)

    async def run() -> tuple[httpx.Response, dict[int, bytes]]:
        async with httpx.AsyncClient(base_url=synthetic.url, timeout=120.0) as client:
            bad = asyncio.create_task(
                client.post("/v1/images/generations", json={"prompt": "POISON", "size": "64x64"})
            )
            good = await synthetic.images(range(20), "beside-poison")
            return await bad, good

    answer, good = asyncio.run(run())
    assert answer.status_code == 500
    assert answer.json()["error"]["code"] == "dead_letter"
    assert "3 tries" in answer.json()["error"]["message"]
    assert len(good) == 20


def test_cancelled_work_stops(synthetic: Service) -> None:
    synthetic.until(all_there)
    with admin(synthetic.where) as client:
        made = [client.post("/admin/v1/requests", json={"prompt": "x", "size": "64x64"}).json() for _ in range(10)]
        ended = [client.delete(f"/admin/v1/requests/{job['id']}").json()["status"] for job in made]
    assert "cancelled" in ended
    assert set(ended) <= {"cancelled", "succeeded"}
    synthetic.until(lambda s: s.requests.running == s.requests.queued == 0)


def test_one_job_for_one_idempotency_key(synthetic: Service) -> None:
    synthetic.until(all_there)
    before = synthetic.status().requests.accepted

    async def run() -> list[str]:
        async with httpx.AsyncClient(base_url=synthetic.url, timeout=60.0) as client:
            body = {"prompt": "x", "size": "64x64", "response_format": "url"}
            posts = [
                client.post("/v1/images/generations", json=body, headers={"Idempotency-Key": "same"})
                for _ in range(100)
            ]
            return [answer.json()["id"] for answer in await asyncio.gather(*posts)]

    assert len(set(asyncio.run(run()))) == 1
    assert synthetic.status().requests.accepted == before + 1
