"""RELIABILITY 16: with the disk full nothing is accepted that could be lost, and what was accepted waits for room."""

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from disagctl.admin_client import admin
from tests.integration.harness import service

TEXT = """
name: full
model: {id: synthetic, stages: {encode: {}, denoise: {}, decode: {artifact_bytes: 300000}}}
workload: {rate: 1/s, shapes: [{size: 64x64}]}
infra: local
"""


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, for the state directory."""
    mount = tmp_path / "disk"
    mount.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=600m", "tmpfs", mount], capture_output=True, check=False)
    if made.returncode:
        pytest.skip(f"needs to mount a tmpfs, so root: {made.stderr.decode().strip()}")
    try:
        yield mount
    finally:
        subprocess.run(["umount", "--lazy", mount], check=True)


def fill(mount: Path) -> Path:
    """Leave no byte free."""
    ballast = mount / "ballast"
    with ballast.open("wb", buffering=0) as file:
        block = b"\0" * (1 << 20)
        while len(block) >= 1:
            try:
                file.write(block)
            except OSError:
                block = block[: len(block) // 2]
    return ballast


def test_refused_while_full_and_kept_until_there_is_room(small_disk: Path) -> None:
    body = {"prompt": "x", "size": "64x64"}
    with service(small_disk, TEXT) as running, admin(running.where, timeout_s=60.0) as client:
        decoder = running.workers("decode")[0].pid
        os.kill(decoder, signal.SIGSTOP)  # the request waits for it, however long filling the disk takes
        job = client.post("/admin/v1/requests", json=body).json()["id"]
        ballast = fill(small_disk)
        try:
            os.kill(decoder, signal.SIGCONT)
            running.until(lambda s: s.stages[-1].ready == 1)
            refused = httpx.post(f"{running.url}/v1/images/generations", json=body, timeout=30.0)
            assert refused.status_code == 507
            status = client.get("/admin/v1/status").json()
            assert status["requests"]["queued"] + status["requests"]["running"] <= 1, "what was refused is not there"
            waits = client.get(f"/admin/v1/requests/{job}", params={"wait_s": 3}).json()
            assert waits["status"] != "succeeded", "computed or not, it is not done before it is stored"
            assert client.get("/admin/v1/status").status_code == 200
        finally:
            ballast.unlink()
        done = client.get(f"/admin/v1/requests/{job}", params={"wait_s": 30}).json()
        assert done["status"] == "succeeded"
        assert done["items"][0]["attempts"] == 1
        again = httpx.post(f"{running.url}/v1/images/generations", json=body, timeout=30.0)
        assert again.status_code == 200
