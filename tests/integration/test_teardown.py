"""``down`` leaves nothing: no process, socket, segment or file, also when the head or an agent is gone."""

import os
import signal
from pathlib import Path

import psutil
import pytest

from disagctl import lifecycle
from disagctl.admin_client import admin
from disagctl.errors import UsageError
from tests.integration.harness import SYNTHETIC, Service, service

TEXT = SYNTHETIC.format(name="gone", encode_bytes=200_000, denoise_bytes=200_000, artifact_bytes=100_000, mode="auto")


def nothing_left(running: Service, family: list[psutil.Process]) -> None:
    _, alive = psutil.wait_procs(family, 15)
    alive = [p for p in alive if p.status() != psutil.STATUS_ZOMBIE]  # children of this very process
    assert not alive
    assert not running.where.root.exists()
    assert not Path(running.record.shm_dir).exists()
    with pytest.raises(UsageError):
        lifecycle.offline_status("gone")


def load(running: Service) -> None:
    """Some requests, and some under way when it ends."""
    running.images(range(6), "before")


@pytest.mark.parametrize("killed", ["nothing", "head", "head and agent", "head hangs"])
def test_nothing_is_left(tmp_path: Path, killed: str) -> None:
    with service(tmp_path, TEXT) as running:
        load(running)
        family = running.processes()
        assert len(family) == 9  # head, agent, seven workers
        agent = next(p for p in family if "stages.agent" in p.cmdline())
        if killed == "head hangs":
            os.kill(running.head_pid(), signal.SIGSTOP)
        elif killed != "nothing":
            running.kill_head()
        if killed == "head and agent":
            agent.kill()
        running.down()
        nothing_left(running, family)


def test_down_saves_what_nobody_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with service(tmp_path, TEXT) as running:
        load(running)  # fetched
        with admin(running.where) as client:
            job = client.post("/admin/v1/requests", json={"prompt": "x", "size": "64x64"}).json()
            client.get(f"/admin/v1/requests/{job['id']}", params={"wait_s": 30})
        saved = lifecycle.down("gone", discard=False, on_progress=lambda _line: None)
    assert [path.name for path in saved] == [f"{job['id']}.png"]
    assert saved[0].read_bytes().startswith(b"\x89PNG")


def test_agents_end_when_there_is_no_head_for_too_long(tmp_path: Path) -> None:
    with service(tmp_path, TEXT + "\nlifetime: {dead_man: 2s}\n") as running:
        family = [p for p in running.processes() if p.pid != running.head_pid()]
        assert len(family) == 8
        running.kill_head()
        _, alive = psutil.wait_procs(family, 60)
        assert not alive
        running.up()
        running.until(lambda s: s.state == "ready")
        assert len(running.images(range(4), "after")) == 4
