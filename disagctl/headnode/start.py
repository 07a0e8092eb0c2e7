"""``up`` with a machine for the head: rent it, wait for it, send it its orders. It goes on where an earlier ``up`` ended."""

import asyncio
import secrets
import subprocess
import time
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from disagctl import clock
from disagctl.admin_client import head_status
from disagctl.errors import DisagctlError, UnexpectedError, UnhealthyError, UsageError, WaitTimeout
from disagctl.failed import as_error as failed_as_error
from disagctl.headnode import ssh
from disagctl.headnode.choose import clouds_of, head_offers
from disagctl.headnode.order import Answer, Order
from disagctl.provision.base import HeadWish, NodeHandle, NodeRequest
from disagctl.provision.choose import sky_folder, torch_needed
from disagctl.provision.sky import SkyProvisioner
from disagctl.provision.sky.failures import Verdict, as_error
from disagctl.readiness import OnStatus, locked
from disagctl.rented import save_deployment
from disagctl.spec import Spec, dump_spec, load_spec
from disagctl.spending import head_row, spent_on_head
from disagctl.state import HeadNode, ServicePaths, ServiceRecord, read_record, write_private, write_record
from disagctl.status import node_view
from disagctl.uids import remember_uid
from disagctl.views import HeadView, StatusView
from planner.run.rent import Deployment, dearest

NODE: Final = "head"
FIRST_PORT: Final = 8460
PORTS: Final = (20460, 20461, 20462)  # hub, data, enrolment: the machine is ours alone
RENTER: Final = "/run/disagctl/renter.sock"  # task_templates/kit/head.sh
MODELS: Final = "/opt/disagctl/models"
LAUNCH_S: Final = 3600.0
SKY_TRIES: Final = 5
ORDER_S: Final = 300.0
PROBE_S: Final = 60.0
LIVING: Final = frozenset({"launching", "up"})

T = TypeVar("T")
ORDER_TRIES: Final = 5
ORDER_AGAIN_S: Final = 2.0


def up(where: ServicePaths, spec: Spec, deployment: Deployment | None, on_progress: OnStatus) -> ServiceRecord:
    """Returns once the head runs there. Raises what keeps the machine from being had, with its exit code."""
    with locked(where):
        record = read_record(where) if where.record.exists() else create(where, spec, deployment)
        if record.head is None:
            raise UsageError(f"the head of {where.name} runs here", next=f"disagctl down {where.name} first")
        _check_machine(where, record, record.head, spec)
        record.http_host, record.tls = spec.api.host, spec.api.certificate is not None
        if deployment is not None and record.plan:
            record.plan = save_deployment(where, deployment)
        asyncio.run(_have_machine(where, record, record.head, spec, on_progress))
        changed = deployment is not None or where.spec.read_text() != dump_spec(spec)
        write_private(where.spec, dump_spec(spec).encode())
        write_record(where, record)
        if changed or head_status(where) is None:
            _send(where, record, _order(where, record, spec))
    return record


def create(where: ServicePaths, spec: Spec, deployment: Deployment | None) -> ServiceRecord:
    """The service's folder and record on this machine; rents nothing yet."""
    if deployment is None:
        raise UnexpectedError(f"{where.name} has no plan")
    room = spec.budget.max_usd_per_hour
    offers = head_offers(deployment, room - deployment.dearest_usd_per_hour if room is not None else None)
    now = clock.wall_s()
    head = HeadNode(secrets.token_hex(4), offers, str(offers[0]), dearest(offers), now)
    where.make()
    record = ServiceRecord(
        name=spec.name, uid=secrets.token_hex(4), created_at=now, http_host=spec.api.host,
        http_port=spec.api.port or FIRST_PORT, hub_port=PORTS[0], data_port=PORTS[1], enrol_port=PORTS[2], shm_dir="",
        infra=list(spec.infra), tls=spec.api.certificate is not None, bind="0.0.0.0",  # noqa: S104  # CURVE and an allow-list on each
        plan=save_deployment(where, deployment), head=head,
    )  # fmt: skip
    record.shm_dir = f"/dev/shm/disagctl-{record.uid}"  # noqa: S108  # a name, on another machine
    remember_uid(record)
    write_private(where.spec, dump_spec(spec).encode())
    write_record(where, record)
    return record


def provisioner(record: ServiceRecord, spec: Spec | None = None) -> SkyProvisioner:
    """What rents the head's machine, on this one."""
    return SkyProvisioner(
        record.name, record.uid, sky_folder(), "auto" if spec is None or torch_needed(spec) else "core"
    )


def handle_of(head: HeadNode) -> NodeHandle:
    """The head's machine, for its provider."""
    state = "up" if head.host else "launching"
    return NodeHandle(NODE, state, head.intent, provider_id=head.provider_id, request_id=head.request_id)  # type: ignore[arg-type]


async def _have_machine(
    where: ServicePaths, record: ServiceRecord, head: HeadNode, spec: Spec, on_progress: OnStatus
) -> None:
    """Ask for it, unless that was done, and wait until it takes orders. What is known is kept at every step."""
    rents = provisioner(record, spec)
    if head.host:
        handle = (await _patiently(lambda: rents.list([handle_of(head)])))[0]
        if handle.state != "gone":
            return
        raise UnhealthyError(
            f"the machine of {record.name}'s head is gone, and what was on it", code="head_lost",
            next=f"disagctl down {record.name} -y, then up again",
        )  # fmt: skip
    request = _request(record, head, spec)
    handle = await _patiently(lambda: rents.launch(request))  # idempotent by intent
    head.provider_id, head.request_id = handle.provider_id, handle.request_id
    head.billed_from = head.billed_from or clock.wall_s()
    write_record(where, record)
    deadline = asyncio.get_running_loop().time() + LAUNCH_S
    while not (reached := await _takes_orders(where, record, head, rents, handle)) and handle.state in LIVING:
        on_progress(_starting(record))
        if asyncio.get_running_loop().time() > deadline:
            raise WaitTimeout(
                f"the head's machine is not up after {LAUNCH_S:g} s", next="run up again to go on waiting"
            )
        await asyncio.sleep(rents.period_s)
        handle = (await _patiently(partial(rents.list, [handle])))[0]
    if not reached:
        head.billed_from = None
        write_record(where, record)
        raise as_error(Verdict(handle.failure, handle.why, handle.tried), "no machine for the head")
    if handle.offer is not None:
        ours = next((o for o in head.offers if (o.cloud, o.region) == (handle.offer.cloud, handle.offer.region)), None)
        head.offer = str(ours or handle.offer)
        head.usd_per_hour = (ours or handle.offer).usd_per_hour
    write_record(where, record)


async def _patiently(call: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """SkyPilot's API server does not always answer in time on a busy machine; what may be asked twice is asked again."""
    for left in reversed(range(SKY_TRIES)):
        try:
            return await call()
        except (OSError, UnexpectedError) as err:
            if not left:
                raise UnhealthyError("SkyPilot does not answer", why=str(err), next="run up again to go on") from err
    raise AssertionError


async def _takes_orders(
    where: ServicePaths, record: ServiceRecord, head: HeadNode, rents: SkyProvisioner, handle: NodeHandle
) -> bool:
    """Asked by SSH itself: it is installed and waits. How it is reached is kept from then on."""
    if handle.offer is None:
        return False
    try:
        way = await rents.way_in(handle)
    except (DisagctlError, OSError, RuntimeError):
        return False
    write_private(where.head_key, way.key.encode())
    there = msgspec.structs.replace(head, host=way.host, port=way.port, user=way.user, proxy=way.proxy)
    argv = ssh.command(where, there, "disagctl.headnode.results")
    try:
        done = await asyncio.to_thread(
            subprocess.run, argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=PROBE_S, check=False
        )
    except subprocess.TimeoutExpired:
        return False
    if done.returncode != 0:
        return False
    head.host, head.port, head.user, head.proxy = way.host, way.port, way.user, way.proxy
    record.advertise = way.host
    return True


def _request(record: ServiceRecord, head: HeadNode, spec: Spec) -> NodeRequest:
    ports = (*PORTS, spec.api.port or FIRST_PORT) if spec.api.public else PORTS
    extra = "auto" if torch_needed(spec) else "core"
    return NodeRequest(
        NODE, head.intent, record.name, record.uid, head.offers, b"", tuple(_folders(spec)), tuple(spec.secrets),
        spec.lifetime.dead_man_s, HeadWish(ports, clouds_of(spec.infra), extra),
    )  # fmt: skip


def _check_machine(where: ServicePaths, record: ServiceRecord, head: HeadNode, spec: Spec) -> None:
    """What the machine was made with cannot be changed under it: open ports, clouds, secrets, model folders."""
    before = load_spec(where.spec, check_files=False)
    before.lifetime.dead_man_s = spec.lifetime.dead_man_s
    if _request(record, head, before) != _request(record, head, spec):
        raise UsageError(
            f"the machine of {record.name}'s head was made for other ports, infra, secrets or model folders",
            next=f"disagctl down {record.name}, then up again", code="head_machine_fixed",
        )  # fmt: skip


def _folders(spec: Spec) -> list[str]:
    """Models that are folders on this machine."""
    return [entry.id for entry in spec.models if Path(entry.id).is_absolute()]


def _order(where: ServicePaths, record: ServiceRecord, spec: Spec) -> Order:
    """The spec as it holds on that machine: the address there, and models where they lie there."""
    there = load_spec(where.spec, check_files=False)
    there.network.advertise = record.advertise
    places = {folder: f"{MODELS}/{at}" for at, folder in enumerate(_folders(spec))}
    for entry in there.models:
        entry.id = places.get(entry.id, entry.id)
    files = [Path(name).read_bytes() if name else None for name in (spec.api.certificate, spec.api.private_key)]
    theirs = msgspec.structs.replace(record, renter=RENTER, head_pid=None, head_started=None)
    return Order(theirs, dump_spec(there), where.plan.read_bytes(), *files)


def _send(where: ServicePaths, record: ServiceRecord, order: Order) -> None:
    """Raises what the head's start raised there, or UnhealthyError when the machine does not answer."""
    argv = ssh.command(where, ssh.head_of(record), "disagctl.headnode.accept")
    said = ""
    for turn in range(ORDER_TRIES):
        if turn:
            time.sleep(ORDER_AGAIN_S)
        try:
            done = subprocess.run(
                argv, input=msgspec.json.encode(order), capture_output=True, timeout=ORDER_S, check=False
            )
        except subprocess.TimeoutExpired:
            said = f"no answer within {ORDER_S:g} s"
            continue
        if done.returncode == 0:
            failed = msgspec.json.decode(done.stdout, type=Answer).failed
            if failed is not None:
                raise failed_as_error(failed)
            return
        said = done.stderr.decode("utf-8", "replace").strip().rpartition("\n")[2][:300]
    raise UnhealthyError(
        "the head's machine takes no orders", why=said, code="head_failed", next=f"disagctl logs {where.name}"
    )


def _starting(record: ServiceRecord) -> StatusView:
    """There is no head to ask yet."""
    row = head_row(record)
    now = clock.wall_s()
    return StatusView(
        record.name, "starting", "", HeadView(None, "", "", now), row.usd_per_hour if row else 0.0,
        spent_on_head(record, now), nodes=[node_view(row, now)] if row else [],
    )  # fmt: skip
