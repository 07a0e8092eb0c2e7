"""Workers with several GPUs each, on a machine whose driver says that it has four: nothing here computes on one."""

from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from disagctl.admin_client import admin
from disagctl.spec import parse_spec
from disagctl.views import StatusView
from tests.integration.harness import Service, service

DRIVER = """
class NVMLError(Exception):
    pass


class Memory:
    total = 80 << 30


def nvmlInit(): ...


def nvmlShutdown(): ...


def nvmlDeviceGetCount():
    return 4


def nvmlDeviceGetHandleByIndex(index):
    return index


def nvmlDeviceGetName(handle):
    return "NVIDIA H200"


def nvmlDeviceGetMemoryInfo(handle):
    return Memory
"""
SPEC = """
name: wide
model:
  id: synthetic
  stages:
    encode: {seconds: 0.02, out_bytes: 100000}
    denoise: {seconds: 0.1, steps: 5, out_bytes: 100000}
    decode: {seconds: 0.02, artifact_bytes: 100000}
workload: {rate: 1/s, shapes: [{size: 64x64}]}
infra: local
stages: {denoise: {gpus_per_replica: GPUS}}
"""
SEEDS = range(6)


@pytest.fixture
def running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    driver = tmp_path / "driver"
    driver.mkdir()
    (driver / "pynvml.py").write_text(DRIVER)
    monkeypatch.setenv("PYTHONPATH", str(driver))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    with service(tmp_path, SPEC.replace("GPUS", "2")) as made:
        yield made


def shown(status: StatusView) -> dict[str, str]:
    """The GPUs that each stage's only worker was started with."""
    return {w.stage: psutil.Process(w.pid).environ()["CUDA_VISIBLE_DEVICES"] for w in status.workers if w.pid}


def listed(status: StatusView) -> dict[str, str]:
    return {w.stage: ",".join(map(str, w.on_gpus)) for w in status.workers}


def settled(status: StatusView) -> bool:
    return status.state == "ready" and len(status.workers) == 3 and all(w.pid and not w.why for w in status.workers)


def test_a_worker_is_shown_its_gpus_keeps_them_and_gets_others_with_another_spec(running: Service) -> None:
    status = running.status()
    assert shown(status) == listed(status) == {"encode": "2", "denoise": "0,1", "decode": "3"}
    assert status.loop is not None
    assert (status.loop.mode, status.loop.off) == ("static", "denoise has 2 GPUs a worker")
    expected = running.images(SEEDS, "two")

    with admin(running.where, timeout_s=60.0) as client:
        answer = client.post("/admin/v1/scale", json={"counts": {"denoise": 3}})
        assert answer.status_code == 400
        assert "3 of denoise with 2 GPUs: 6 GPUs, of 4" in answer.text

    with running.under_way(SEEDS, "killed") as pictures:
        lost = running.kill_worker("denoise")
        running.until(lambda now: settled(now) and lost not in {w.id for w in now.workers})
        assert pictures.result() == expected
    status = running.status()
    assert shown(status) == listed(status) == {"encode": "2", "denoise": "0,1", "decode": "3"}

    with running.under_way(SEEDS, "one") as pictures:
        running.spec = parse_spec(SPEC.replace("GPUS", "1"), base=running.home)
        running.up()
        assert pictures.result() == expected
    status = running.until(lambda now: settled(now) and listed(now)["denoise"] == "0")
    assert shown(status) == listed(status) == {"encode": "2", "denoise": "0", "decode": "3"}
    assert status.requests.failed == 0
    assert status.loop is not None
    assert (status.loop.mode, status.loop.off) == ("hybrid", "")
