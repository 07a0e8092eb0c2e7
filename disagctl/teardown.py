"""Ending a service without its head, and making sure that nothing is left: processes, sockets, segments, files."""

import shutil
from collections.abc import Callable
from pathlib import Path

import psutil

from disagctl.errors import TeardownError
from disagctl.provision.base import NodeHandle
from disagctl.provision.local import alive, end_agent, strays
from disagctl.state import ServicePaths, ServiceRecord
from disagctl.store.offline import open_nodes
from stages.transport.segments import remove_service

Say = Callable[[str], None]


def end_processes(where: ServicePaths, say: Say) -> None:
    """End all agents, by the store's rows and by their command lines. Raises TeardownError naming what stays."""
    failures: list[str] = []
    for node, pid, created in open_nodes(where.store):
        handle = NodeHandle(node, True, pid, created)
        if alive(handle.pid, handle.pid_created):
            say(f"ending node {handle.node}")
        try:
            end_agent(handle)
        except TeardownError as err:
            failures.append(err.what)
    left = strays(where)
    for process in left:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    _, left = psutil.wait_procs(left, 5.0)
    failures += [f"process {p.pid} does not end" for p in left]
    if failures:
        raise TeardownError("; ".join(failures), next=f"disagctl down {where.name} -y tries again")


def end_head(record: ServiceRecord, timeout_s: float) -> None:
    """SIGTERM, then SIGKILL: the head leaves its agents running, ``end_processes`` deals with those."""
    if not alive(record.head_pid, record.head_started):
        return
    process = psutil.Process(record.head_pid)
    process.terminate()
    try:
        process.wait(timeout_s)
    except psutil.TimeoutExpired:
        process.kill()
        process.wait(5.0)


def remove_files(where: ServicePaths, record: ServiceRecord) -> None:
    """Segments and the service's folder."""
    remove_service(Path(record.shm_dir))
    shutil.rmtree(where.root, ignore_errors=True)
    if where.root.exists():
        raise TeardownError(f"{where.root} cannot be removed", next="remove it by hand")
