"""Ending a service without its head, and making sure that nothing is left: processes, sockets, segments, files."""

import asyncio
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import msgspec
import psutil

from disagctl.errors import DisagctlError, TeardownError
from disagctl.provision.base import NodeHandle, Provisioner, nothing_left
from disagctl.provision.choose import provisioner_of
from disagctl.provision.local import alive, end_agent, strays
from disagctl.state import ServicePaths, ServiceRecord
from disagctl.store.offline import open_nodes
from planner.run.nodes import CONFIRMATIONS
from stages.transport.segments import remove_service

MOST_TURNS: Final = 12  # of looking and releasing
Say = Callable[[str], None]


def end_processes(where: ServicePaths, say: Say) -> None:
    """End all agents, by the store's rows and by their command lines. Raises TeardownError naming what stays."""
    failures: list[str] = []
    for row in open_nodes(where.store):
        handle = NodeHandle(row.id, "up", row.intent, pid=row.pid, pid_created=row.pid_created)
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


def end_machines(where: ServicePaths, record: ServiceRecord, say: Say) -> None:
    """Release every rented machine, by the store's rows and by the service's tags, until the provider has twice listed none.

    Raises TeardownError naming what stays, with its price.
    """
    rows = {row.id: row for row in open_nodes(where.store)}
    handles = [
        NodeHandle(
            row.id, "up", row.intent, provider_id=row.provider_id, request_id=row.request_id, pid=row.pid,
            pid_created=row.pid_created,
        )
        for row in rows.values()
    ]  # fmt: skip
    left = asyncio.run(release_all(provisioner_of(where, record), handles, say))
    if left:
        names = [
            f"{h.provider_id or h.node} (${rows[h.node].usd_per_hour if h.node in rows else 0.0:.2f}/h)" for h in left
        ]
        why = "; ".join(dict.fromkeys(h.why for h in left if h.why))
        raise TeardownError(
            f"{', '.join(names)} may still run and bill", why=why, next=f"disagctl down {where.name} -y tries again"
        )


async def release_all(
    provisioner: Provisioner, known: Sequence[NodeHandle], say: Say, *, strays: bool = True
) -> list[NodeHandle]:
    """What is left after the last try; empty once nothing was listed twice in a row. ``strays``: end those as well."""
    empty = 0
    why: dict[str, str] = {}
    left: Sequence[NodeHandle] = known
    for turn in range(MOST_TURNS):
        if turn:
            await asyncio.sleep(provisioner.period_s)
        try:
            listed = await provisioner.list(known)
            left = [h for h in (listed if strays else listed[: len(known)]) if not nothing_left(h)]
        except DisagctlError as err:
            return [
                msgspec.structs.replace(handle, why=f"the provider cannot be asked: {err}") for handle in left or known
            ]
        empty = 0 if left else empty + 1
        if empty >= CONFIRMATIONS:
            return []
        for handle, result in zip(
            left, await asyncio.gather(*map(provisioner.release, left), return_exceptions=True), strict=True
        ):
            say(f"ending {handle.provider_id or handle.node}" if result is None else f"{handle.node}: {result}")
            why[handle.node] = "" if result is None else str(result)
    return [msgspec.structs.replace(handle, why=why.get(handle.node) or "it is still listed") for handle in left]


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
