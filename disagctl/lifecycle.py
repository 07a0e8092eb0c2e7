"""Bringing services up and down, from the CLI's process. The head may be alive, dead, or not made yet."""

import os
import secrets
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from disagctl import clock, precheck, teardown
from disagctl.admin_client import admin, head_status
from disagctl.errors import (
    UnhealthyError,
    UsageError,
)
from disagctl.headnode import start, stop
from disagctl.headnode.choose import wants_machine
from disagctl.provision.local import alive, default_shm_dir
from disagctl.readiness import POLL_S, OnStatus, await_ready, last_line, locked
from disagctl.rented import LOCAL, load_deployment, save_deployment
from disagctl.settings import child_environment
from disagctl.spec import Spec, dump_spec, load_spec
from disagctl.spending import head_row
from disagctl.state import ServicePaths, ServiceRecord, paths, read_record, services, write_private, write_record
from disagctl.status import node_view
from disagctl.store.offline import last_events, open_nodes, outcomes, unfetched
from disagctl.store.offline import nodes as nodes_of
from disagctl.uids import remember_uid
from disagctl.views import EventView, HeadView, RequestCounts, StatusView
from planner.run.fleet import NodeWish
from planner.run.rent import Deployment

AWAY_POLL_S: Final = 1.0
HEAD_START_S: Final = 30.0
HEAD_STOP_S: Final = 60.0
MACHINES_STOP_S: Final = 900.0
EXTENSIONS: Final = {"image/png": "png", "image/jpeg": "jpg", "image/webp": "webp", "video/mp4": "mp4"}


def head_alive(name: str) -> bool:
    """Whether the head's process runs."""
    record = read_record(paths(name))
    return head_status(paths(name)) is not None if record.away else alive(record.head_pid, record.head_started)


def diff(spec: Spec, deployment: Deployment | None = None) -> list[str]:
    """What ``up`` would change, a line each; empty when nothing."""
    check(spec)
    where = paths(spec.name)
    if not where.record.exists():
        if deployment is not None:
            wishes = deployment.wishes
            return [f"+ {w.count} × {w.key}: ${w.count * w.offers[0].usd_per_hour:.2f}/h" for w in wishes]
        models = precheck.cards(spec)
        lines = [
            f"+ {m}.{stage}: {spec.replicas(m, stage)[0]} worker(s) on this machine, $0.00/h"
            for m, card in models.items()
            for stage in card.stages
        ]
        if spec.policy.workers is not None and spec.policy.scaling != "static":
            lines.append(f"+ up to {spec.policy.workers} workers in all, where the work is")
        return lines
    lines = [] if head_alive(spec.name) else ["~ head: not running, will be started again on the same port and store"]
    old = dump_spec(load_spec(where.spec, check_files=False)).splitlines() if where.spec.exists() else []
    new = dump_spec(spec).splitlines()
    lines += [f"- {line.strip()}" for line in old if line not in new]
    lines += [f"+ {line.strip()}" for line in new if line not in old]
    if deployment is not None:
        before = load_deployment(where)
        lines += _fleet_diff(before.wishes if before is not None else (), deployment.wishes)
    return lines


def is_unchanged(spec: Spec) -> bool:
    """Whether the service exists as this very spec has it, machines included."""
    where = paths(spec.name)
    known = where.record.exists() and where.spec.exists() and where.plan.exists()
    return known and where.spec.read_text() == dump_spec(spec)


def _fleet_diff(before: tuple[NodeWish, ...], after: tuple[NodeWish, ...]) -> list[str]:
    old, new = ({wish.key: wish.count for wish in wishes} for wishes in (before, after))
    return [
        f"~ {key}: {old.get(key, 0)} → {new.get(key, 0)} node(s)"
        for key in dict.fromkeys([*old, *new])
        if old.get(key, 0) != new.get(key, 0)
    ]


def check(spec: Spec) -> None:
    """What can be known to be impossible from the spec alone."""
    precheck.check_infra(spec, own_head=wants_machine(spec))
    precheck.check_transport(spec)
    precheck.check_certificate(spec)


def up(
    spec: Spec, *, wait_s: float | None, on_progress: OnStatus, deployment: Deployment | None = None
) -> ServiceRecord:
    """Make the service be as the spec says; returns when it is ready (``wait_s`` None: when its head runs).

    ``deployment``: what to rent from now on; None on ``infra: local``, and where it stays as it is.

    A new service is checked before anything starts. On a live one a changed spec restarts the head alone: agents and
    work in flight outlive it, and workers whose model changed drain and load the new one. A dead head is started again.
    """
    check(spec)
    where = paths(spec.name)
    models = precheck.cards(spec)
    precheck.check_precisions(spec, models)
    if spec.infra == LOCAL:
        precheck.check_gpus(spec, models)
    if wants_machine(spec):
        if where.record.exists():
            check_place(where, read_record(where), spec)
        record = start.up(where, spec, deployment, on_progress)
    else:
        if not where.record.exists() and deployment is None:
            precheck.check_memory(spec, models)
        record = begin(where, spec, deployment)
    if wait_s is not None:
        await_ready(where, wait_s, on_progress, AWAY_POLL_S if record.away else POLL_S)
    return record


def begin(where: ServicePaths, spec: Spec, deployment: Deployment | None) -> ServiceRecord:
    """Have a head of this service run on this machine, as the spec and the plan have it; returns once it answers."""
    with locked(where), precheck.ports_lock():
        record = _update(where, spec, deployment) if where.record.exists() else create(where, spec, deployment)
        if not alive(record.head_pid, record.head_started):
            precheck.check_ports(record)
            _start_head(where)
        return _await_head(where)


def down(name: str, *, discard: bool, on_progress: Callable[[str], None]) -> list[Path]:
    """End everything and remove the service. Results that nobody fetched are saved below the current folder first."""
    where = paths(name)
    record = read_record(where)
    if record.away:
        return stop.down(where, record, Path.cwd() / f"{name}-results", discard=discard, say=on_progress)
    with locked(where):
        if alive(record.head_pid, record.head_started):
            _stop_head(where, record, discard=discard, say=on_progress)
        saved = [] if discard else save_results(where, Path.cwd() / f"{name}-results")
        teardown.end_head(record, 10.0)
        if record.infra == LOCAL:
            teardown.end_processes(where, on_progress)
        else:
            teardown.end_machines(where, record, on_progress)
        teardown.remove_files(where, record)
    return saved


def machines(where: ServicePaths) -> list[str]:
    """The offers of the machines that run for a service."""
    if not read_record(where).away:
        return [row.offer for row in open_nodes(where.store)]
    view = head_status(where)
    return [node.offer for node in view.nodes] if view is not None else []


def save_results(where: ServicePaths, target: Path) -> list[Path]:
    """Write every unfetched result to ``target`` (made when there are any)."""
    saved: list[Path] = []
    for item, mime, file, data in unfetched(where.store):
        content = data
        if content is None and file is not None and (where.artifacts / file).is_file():
            content = (where.artifacts / file).read_bytes()
        if content is None:
            continue
        target.mkdir(exist_ok=True)
        path = target / f"{item}.{EXTENSIONS.get(mime, 'bin')}"
        path.write_bytes(content)
        saved.append(path)
    return saved


def offline_status(name: str) -> StatusView:
    """What can be said without a head."""
    where = paths(name)
    record = read_record(where)
    counts = outcomes(where.store)
    now = clock.wall_s()
    own = head_row(record)
    rows = nodes_of(where.store) + ([own] if own is not None else [])
    nodes = [node_view(row, now) for row in rows if row.state != "gone"]
    for node, row in zip(nodes, [row for row in rows if row.state != "gone"], strict=True):
        if row.provider == "local":
            node.state = "up" if alive(row.pid, row.pid_created) else "lost"
    return StatusView(
        name=record.name,
        state="head_down",
        endpoint=record.url,
        head=HeadView(None, "", "", record.head_started_at),
        usd_per_hour=sum(node.usd_per_hour for node in nodes),
        usd_total=sum(row.usd(now) for row in rows),
        nodes=nodes,
        requests=RequestCounts(
            accepted=sum(counts.values()), queued=counts.get("open", 0), succeeded=counts.get("succeeded", 0),
            failed=counts.get("failed", 0), cancelled=counts.get("cancelled", 0),
        ),
        events=[EventView(at, kind, why, seq) for seq, at, kind, why in last_events(where.store, 20)],
    )  # fmt: skip


def create(where: ServicePaths, spec: Spec, deployment: Deployment | None = None) -> ServiceRecord:
    """Make the service's folder and record, with ports that are free now; starts nothing."""
    bind, advertise = precheck.addresses(spec)
    precheck.check_disk(where.root.parent.parent)
    taken = _taken_ports(where)
    port = precheck.choose_port(spec.api.host, spec.api.port, taken)
    ours = precheck.free_ports(bind, 3, taken | {port})
    where.make()
    uid = secrets.token_hex(4)
    record = ServiceRecord(
        name=spec.name,
        uid=uid,
        created_at=clock.wall_s(),
        http_host=spec.api.host,
        http_port=port,
        hub_port=ours[0],
        data_port=ours[1],
        enrol_port=ours[2],
        shm_dir=str(default_shm_dir(uid)),
        infra=list(spec.infra),
        tls=spec.api.certificate is not None,
        bind=bind,
        advertise=advertise,
        plan=save_deployment(where, deployment) if deployment is not None else "",
    )
    if deployment is not None:
        remember_uid(record)
    write_private(where.spec, dump_spec(spec).encode())
    write_record(where, record)
    return record


# --- inside ------------------------------------------------------------------------------------------------------


def _update(where: ServicePaths, spec: Spec, deployment: Deployment | None) -> ServiceRecord:
    record = read_record(where)
    if record.stopping:
        raise UsageError(
            f"{where.name} is being taken down",
            next=f"run disagctl down {where.name} -y first, then up again",
            code="stopping",
        )
    check_place(where, record, spec)
    text = dump_spec(spec)
    if deployment is None and where.spec.exists() and where.spec.read_text() == text:
        return record
    if spec.api.port is not None and spec.api.port != record.http_port:
        precheck.choose_port(spec.api.host, spec.api.port, _taken_ports(where))
        record.http_port = spec.api.port
    record.http_host, record.tls = spec.api.host, spec.api.certificate is not None
    teardown.end_head(record, 10.0)  # SIGTERM leaves agents and work in flight as they are
    if deployment is not None:
        record.plan, record.infra = save_deployment(where, deployment), list(spec.infra)
    write_private(where.spec, text.encode())
    write_record(where, record)
    return record


def check_place(where: ServicePaths, record: ServiceRecord, spec: Spec) -> None:
    """A live service moves neither its head nor to or from ``infra: local``. Raises UsageError."""
    if (record.infra == LOCAL) == (spec.infra == LOCAL) and record.away == wants_machine(spec):
        return
    raise UsageError(
        f"{where.name} runs on {', '.join(record.infra)}{', with a machine for its head' if record.away else ''}",
        why=f"the spec says {', '.join(spec.infra)}{', which needs one' if wants_machine(spec) else ''}",
        next=f"disagctl down {where.name} first, then up again", code="infra_changed",
    )  # fmt: skip


def _start_head(where: ServicePaths) -> None:
    """Start a process that is nobody's child: posix_spawn and not Popen, which would want to wait for it."""
    log = str(where.logs / "head.log")
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    os.posix_spawn(
        sys.executable,
        [sys.executable, "-m", "disagctl.head", str(where.root)],
        child_environment(),
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, log, flags, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
        setsid=True,
    )


def _await_head(where: ServicePaths) -> ServiceRecord:
    deadline = time.monotonic() + HEAD_START_S
    while time.monotonic() < deadline:
        record = read_record(where)
        if alive(record.head_pid, record.head_started) and head_status(where, 2.0) is not None:
            return record
        time.sleep(POLL_S)
    raise UnhealthyError(
        "the head did not start",
        why=last_line(where.logs / "head.log"),
        next=f"disagctl logs {where.name}",
        code="head_failed",
    )


def _stop_head(where: ServicePaths, record: ServiceRecord, *, discard: bool, say: Callable[[str], None]) -> None:
    import httpx

    say("asking the head to end every node")
    try:
        with admin(where) as client:
            answer = client.post("/admin/v1/stop", json={"discard": discard})
    except (httpx.TransportError, OSError):
        return  # it hangs or has just died: the caller ends the processes itself
    if answer.is_error:
        return
    deadline = time.monotonic() + (HEAD_STOP_S if record.infra == LOCAL else MACHINES_STOP_S)
    while alive(record.head_pid, record.head_started):
        if time.monotonic() > deadline:
            return
        time.sleep(POLL_S)


def _taken_ports(where: ServicePaths) -> set[int]:
    """Ports of the other services here, also of those that do not run at the moment."""
    return {port for other in services() if other.root != where.root for port in read_record(other).ports}
