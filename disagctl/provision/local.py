"""``infra: local``: the agent is a process of this machine, in a session of its own so that it outlives the head."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec
import psutil

from disagctl.errors import TeardownError
from disagctl.provision.base import NodeHandle, NodeRequest
from disagctl.settings import child_environment
from disagctl.state import ServicePaths, write_private

END_S: Final = 10.0  # an agent ends its workers within this
KILL_S: Final = 5.0


class LocalProvisioner:
    """Agents as child processes."""

    name = "local"
    period_s = 0.5
    lag_s = 0.0

    def __init__(self, where: ServicePaths) -> None:
        self._where = where
        self._children: dict[int, subprocess.Popen[bytes]] = {}

    async def launch(self, request: NodeRequest) -> NodeHandle:
        """Start the agent process."""
        folder = self._where.nodes / request.node
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        boot = folder / "bootstrap.json"
        write_private(boot, request.bootstrap)
        log_fd = os.open(self._where.logs / f"{request.node}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            child = subprocess.Popen(  # noqa: ASYNC220  # our own interpreter and module; returns at once
                [sys.executable, "-m", "stages.agent", str(boot)],
                stdin=subprocess.DEVNULL,
                stdout=log_fd,
                stderr=log_fd,
                start_new_session=True,
                env=child_environment(),
            )
        finally:
            os.close(log_fd)
        self._children[child.pid] = child
        created = psutil.Process(child.pid).create_time()
        return NodeHandle(request.node, "up", request.intent, pid=child.pid, pid_created=created)

    async def list(self, known: Sequence[NodeHandle]) -> list[NodeHandle]:
        """Which of these still run. Agents that no record names are ``strays``' business: one may be starting this moment."""
        for child in list(self._children.values()):
            if child.poll() is not None:
                del self._children[child.pid]
        return [msgspec.structs.replace(h, state="up" if alive(h.pid, h.pid_created) else "gone") for h in known]

    async def release(self, handle: NodeHandle) -> None:
        """Ask the agent to end; end its whole session if it does not."""
        await asyncio.to_thread(end_agent, handle)
        child = self._children.pop(handle.pid or -1, None)
        if child is not None:
            child.wait()

    async def logs(self, handle: NodeHandle, tail: int) -> tuple[str, ...]:
        """The agent's log file."""
        path = self._where.logs / f"{handle.node}.log"
        return tuple(path.read_text(errors="replace").splitlines()[-tail:]) if path.exists() else ()


def alive(pid: int | None, created: float | None) -> bool:
    """Whether that very process still runs (and is no zombie)."""
    if pid is None:
        return False
    try:
        process = psutil.Process(pid)
        same = created is None or abs(process.create_time() - created) < 1.0
        return same and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def end_agent(handle: NodeHandle) -> None:
    """Blocking: SIGTERM, wait, then SIGKILL to the session. Raises TeardownError when something is still there."""
    if handle.pid is None or not alive(handle.pid, handle.pid_created):
        return
    agent = psutil.Process(handle.pid)
    family = [agent, *agent.children(recursive=True)]
    agent.terminate()
    agent.send_signal(signal.SIGCONT)  # a stopped one would never hear it
    _, left = psutil.wait_procs(family, END_S)
    for process in left:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    _, left = psutil.wait_procs(left, KILL_S)
    if left:
        pids = ", ".join(str(p.pid) for p in left)
        raise TeardownError(f"processes {pids} of node {handle.node} do not end", next="kill them by hand")


def strays(where: ServicePaths) -> list[psutil.Process]:
    """Agents of this service that no record names (their head died before it wrote one), and their children."""
    found: list[psutil.Process] = []
    marker = str(where.nodes) + os.sep
    for process in psutil.process_iter(["cmdline"]):
        command = process.info["cmdline"] or []
        if "stages.agent" in command and any(part.startswith(marker) for part in command):
            try:
                found += [process, *process.children(recursive=True)]
            except psutil.NoSuchProcess:
                continue
    return found


def default_shm_dir(service_uid: str) -> Path:
    """Where this service's shared-memory segments live."""
    base = Path("/dev/shm") if Path("/dev/shm").is_dir() else Path(os.path.realpath("/tmp"))  # noqa: S108
    return base / f"disagctl-{os.getuid()}-{service_uid}"
