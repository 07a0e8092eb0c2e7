"""What is said before anything starts: a port in use, a missing model folder, too little memory or disk."""

import importlib.util
import os
import secrets
import shutil
import socket
import ssl
import sys
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import psutil

from disagctl.errors import InfeasibleError, UsageError
from disagctl.models import card_of, weight_bytes
from disagctl.spec import Spec
from disagctl.state import ServiceRecord
from planner.domain import Role
from planner.precision import FORMATS, is_quantised, split_precision
from planner.run.wide import too_many
from stages.hardware import address_towards, gpus
from stages.models.base import ModelCard, ModelError
from stages.models.registry import BUILTIN
from stages.transport.relay import RelayError, check_store

FIRST_PORT: Final = 8460
PORTS_TRIED: Final = 40
OWN_PORTS: Final = range(20_000, 32_000)
MIN_DISK_BYTES: Final = 512 << 20
WORKER_BYTES: Final = 150 << 20  # a worker process without torch is far below, with torch and diffusers loaded above
TORCH_BYTES: Final = 420 << 20
ANYWHERE: Final = "198.51.100.1"  # reserved for documentation: only the way there is looked up
NEAR: Final = frozenset({"local", "slurm", "kubernetes", "k8s", "ssh"})  # where nodes are taken to reach this machine


def cards(spec: Spec) -> dict[str, ModelCard]:
    """Every model's card. Raises UsageError for a folder that is not there or not a diffusers repository."""
    found: dict[str, ModelCard] = {}
    for entry in spec.models:
        try:
            found[entry.name] = card_of(spec.source(entry))
        except ModelError as err:
            raise UsageError(
                f"model {entry.name!r} cannot be used",
                why=str(err),
                next="check model.id in the spec",
                code="model_missing",
            ) from err
    return found


def check_infra(spec: Spec, *, own_head: bool = False) -> None:
    """What renting machines needs here. Raises UsageError without SkyPilot, InfeasibleError where nodes could not reach the
    head. ``own_head``: it gets a machine of its own."""
    if spec.infra == ["local"]:
        return
    near = [place for place in spec.infra if is_near(place)]
    if own_head and near:
        raise InfeasibleError(
            f"{', '.join(near)} and the other infra share no place for the head", code="head_unreachable",
            why="nodes in a cloud do not reach this machine, and a machine in a cloud does not start jobs there",
            next="name one kind of infra, or set network: {advertise: ADDRESS} to an address of this machine that all"
            " nodes reach (a VPN's, a public one)",
        )  # fmt: skip
    if not has_skypilot():
        raise UsageError(
            f"infra {', '.join(spec.infra)} needs SkyPilot", why="it is not installed here",
            next="pip install 'disagctl[sky]'", code="sky_missing",
        )  # fmt: skip


def is_near(place: str) -> bool:
    """Whether nodes there are taken to reach this machine."""
    return place.partition("/")[0].lower() in NEAR


def has_skypilot() -> bool:
    """Whether it is installed; importing it to find out would take seconds."""
    return importlib.util.find_spec("sky") is not None


def check_transport(spec: Spec) -> None:
    """A store that tensors are to go through must take and give; and what this version does not have."""
    transport = spec.transport
    if transport.relay:
        try:
            check_store(transport.relay)
        except RelayError as err:
            raise UsageError(
                f"transport.relay {transport.relay} cannot be used", why=str(err),
                next="check the URL and its credentials", code="relay_failed",
            ) from err  # fmt: skip
    if spec.artifacts.store != "head":
        raise InfeasibleError(
            f"artifacts.store {spec.artifacts.store} is not in this version", why="results are kept on the head's disk",
            next="set artifacts: {store: head}", code="store_unsupported",
        )  # fmt: skip


def check_precisions(spec: Spec, models: dict[str, ModelCard]) -> None:
    """What holds weights in fewer bits must be installed, and run on this machine."""
    for entry in spec.models:
        if entry.id == "synthetic" or entry.adapter not in {None, *BUILTIN}:
            continue
        for stage in models[entry.name].stages:
            base, _ = split_precision(spec.source(entry, stage).precision)
            package = FORMATS[base].package if is_quantised(base) else ""
            what = f"{entry.name}.{stage} cannot be held in {base}"
            if package and find_spec(package) is None:
                raise InfeasibleError(
                    what, why=f"{package} is not installed here", code="precision_unsupported",
                    next="pip install 'disagctl[worker-quant]', or change stages.*.precision",
                )  # fmt: skip
            if package and FORMATS[base].gpu and not gpus():
                raise InfeasibleError(
                    what, why=f"{package} computes on GPUs only, and there is none here", code="precision_unsupported",
                    next="set stages.*.precision to int8 or auto",
                )  # fmt: skip


def check_gpus(spec: Spec, models: dict[str, ModelCard]) -> None:
    """Workers of several GPUs each must find them on this machine. Where there is none, they compute on the CPU."""
    wishes = {Role(name, stage): spec.wish(name, stage) for name, card in models.items() for stage in card.stages}
    wanted = {role: wish.replicas.min if wish.replicas else 1 for role, wish in wishes.items()}
    here = len(gpus())
    why = too_many(wanted, {role: wish.gpus for role, wish in wishes.items()}, here) if here else ""
    if why:
        raise InfeasibleError(
            "this machine has too few GPUs", why=why, code="too_few_gpus",
            next="lower stages.*.gpus_per_replica, or stages.*.replicas",
        )  # fmt: skip


def check_memory(spec: Spec, models: dict[str, ModelCard]) -> None:
    """Weights of all workers must fit into what is free. CPU workers load half precision as float32: twice the bytes."""
    on_gpu = gpus()
    free = sum(g.memory_bytes for g in on_gpu) or int(psutil.virtual_memory().available)
    need = 0
    for entry in spec.models:
        source = spec.source(entry)
        weights = weight_bytes(source)
        base = WORKER_BYTES if entry.id == "synthetic" else TORCH_BYTES
        for stage in models[entry.name].stages:
            count = spec.replicas(entry.name, stage)[0] * spec.wish(entry.name, stage).gpus
            held = weights.get(stage, 0) * (1 if on_gpu else 2) * share_on_device(spec.source(entry, stage).precision)
            need += count * (int(held) + (0 if on_gpu else base))
    if need > free:
        where = "GPU memory" if on_gpu else "memory"
        raise InfeasibleError(
            f"the workers need about {gib(need)} of {where}", why=f"{gib(free)} is available",
            next="lower stages.*.replicas or use a smaller model", code="too_little_memory",
        )  # fmt: skip


def share_on_device(precision: str) -> float:
    """Of the weights' bytes as saved, at least so much is on the device."""
    base, offload = split_precision(precision)
    if offload and gpus():
        return 0.0
    return FORMATS[base].linear_bytes / 2 if is_quantised(base) else 1.0


def check_disk(folder: Path) -> None:
    """Results and the ledger need room."""
    free = shutil.disk_usage(folder).free
    if free < MIN_DISK_BYTES:
        raise InfeasibleError(
            f"{folder} has {gib(free)} free", why=f"a service needs at least {gib(MIN_DISK_BYTES)} for results",
            next="free some space, or set DISAGCTL_HOME to another disk", code="too_little_disk",
        )  # fmt: skip


def check_certificate(spec: Spec) -> None:
    """A public endpoint's certificate must load."""
    if spec.api.certificate is None:
        return
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(spec.api.certificate, spec.api.private_key)
    except OSError as err:
        files = f"{spec.api.certificate} and {spec.api.private_key}"
        raise UsageError(
            f"{files} cannot be used for TLS", why=str(err), next="check api.certificate and api.private_key",
            code="bad_certificate",
        ) from err  # fmt: skip


def check_ports(record: ServiceRecord) -> None:
    """A head that starts again needs the very ports it had: its agents and clients know no others."""
    hosts = dict.fromkeys(sorted(record.ports), record.bind) | {record.http_port: record.http_host}
    for port, host in hosts.items():
        if not is_free(host, port):
            raise UsageError(
                f"port {port} on {host} is in use", why=f"it is {record.name}'s, and another program listens there now",
                next=f"end that program, then run up again; or disagctl down {record.name} -y", code="port_in_use",
            )  # fmt: skip


@contextmanager
def ports_lock(wait_s: float = 90.0) -> Iterator[None]:
    """One at a time on this machine between choosing ports and listening on them; else two could choose the same.

    An abstract socket's name is the lock: it leaves no file, and goes with its process. Where there are none, nobody waits,
    and the second of two heads that start in the same moment says that its port is in use.
    """
    if sys.platform != "linux":
        yield
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as lock:
        end = time.monotonic() + wait_s
        while True:
            try:
                lock.bind(f"\0disagctl-ports-{os.getuid()}")
                break
            except OSError as err:
                if time.monotonic() > end:
                    raise UsageError(
                        "another service is still being started", next="wait for it to end", code="busy"
                    ) from err
                time.sleep(0.05)
        yield


def choose_port(host: str, wished: int | None, taken: Collection[int] = ()) -> int:
    """The wished port, which must be free; without a wish the first free one from 8460 on that is nobody's."""
    if wished is not None:
        if not is_free(host, wished):
            raise UsageError(
                f"port {wished} on {host} is in use", why="another program listens there",
                next="set api.port to another one, or leave it out", code="port_in_use",
            )  # fmt: skip
        return wished
    for port in range(FIRST_PORT, FIRST_PORT + PORTS_TRIED):
        if port not in taken and is_free(host, port):
            return port
    raise UsageError(f"no free port from {FIRST_PORT} on", next="set api.port", code="port_in_use")


def free_ports(host: str, count: int, taken: Collection[int]) -> list[int]:
    """Free ports below those that systems give to outgoing connections: a head that restarts must find them free again."""
    found: list[int] = []
    while len(found) < count:
        port = OWN_PORTS.start + secrets.randbelow(len(OWN_PORTS))
        if port not in taken and port not in found and is_free(host, port):
            found.append(port)
    return found


def is_free(host: str, port: int) -> bool:
    """Whether we could listen there."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def addresses(spec: Spec) -> tuple[str, str]:
    """(where hub, data and enrolment listen, the address by which nodes reach them)."""
    if spec.infra == ["local"]:
        return "127.0.0.1", "127.0.0.1"
    wished = spec.network.advertise
    if wished == "auto":
        wished = address_towards(f"tcp://{ANYWHERE}:9")
    mine = {address.address.partition("%")[0] for every in psutil.net_if_addrs().values() for address in every}
    loopback = wished.startswith("127.")  # all of 127/8 is this machine's
    return (wished if wished in mine or loopback else "0.0.0.0"), wished  # noqa: S104  # CURVE and an allow-list on each


def gib(nbytes: int) -> str:
    """For people."""
    return f"{nbytes / (1 << 30):.1f} GiB"
