"""A service's plan as it is kept beside its spec, and what the head makes of it."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from disagctl.errors import UsageError
from disagctl.keys import KeyPair
from disagctl.node_book import Recipe
from disagctl.roster import Roster
from disagctl.spec import Spec
from disagctl.spending import head_row
from disagctl.state import ServicePaths, ServiceRecord, write_private
from planner.domain import Role
from planner.run.fleet import Bundle, NodeWish
from planner.run.rent import Deployment
from planner.run.wide import too_many
from stages.boot import Bootstrap

LOCAL: Final = ["local"]
ON_THIS_MACHINE: Final = (NodeWish("local", (), 1),)


def save_deployment(where: ServicePaths, made: Deployment) -> str:
    """Keep it; returns the plan's name."""
    data = msgspec.json.encode(made)
    write_private(where.plan, data)
    return hashlib.sha256(data).hexdigest()[:16]


def load_deployment(where: ServicePaths) -> Deployment | None:
    """What is rented for the service; None for ``infra: local``. Raises UsageError when the file is damaged."""
    try:
        return msgspec.json.decode(where.plan.read_bytes(), type=Deployment)
    except FileNotFoundError:
        return None
    except (msgspec.DecodeError, UnicodeDecodeError) as err:
        raise UsageError(f"{where.plan} is damaged", why=str(err), next=f"disagctl down {where.name} -y") from err


def shares_of(made: Deployment | None) -> dict[tuple[Role, str], int]:
    """Workers of a role on a type of GPU."""
    return {(share.role, share.accelerator): share.count for share in made.shares} if made is not None else {}


def bundles_of(made: Deployment | None) -> dict[tuple[Bundle, str], int]:
    """GPUs of a type that hold several roles."""
    shared = made.seating.shared if made is not None else {}
    return {(bundle, name): count for name, bundles in shared.items() for bundle, count in bundles.items()}


def no_seats(wanted: Mapping[Role, int], roster: Roster, made: Deployment | None, gpus: int) -> str:
    """Why so many workers of several GPUs each find none; "". ``gpus``: this machine's, where nothing is rented."""
    if made is None:
        why = too_many(wanted, roster.widths, gpus) if gpus else ""
        return f"this machine has too few GPUs ({why})" if why else ""
    beyond = next((role for role in roster.widths if wanted.get(role, 0) > made.wanted.get(role, 0)), None)
    if beyond is None:
        return ""
    planned, width = made.wanted.get(beyond, 0), roster.widths[beyond]
    return (
        f"GPUs were rented for {planned} of {beyond.stage}, of {width} each: set its replicas and run up again for more"
    )


def recipe(where: ServicePaths, record: ServiceRecord, spec: Spec, pair: KeyPair, made: Deployment | None) -> Recipe:
    """What every machine of the service is made with."""
    local = record.infra == LOCAL
    template = Bootstrap(
        node="",
        enrol_endpoint=f"tcp://{bracketed(record.advertise)}:{record.enrol_port}",
        head_key=pair.public,
        token="",
        work_dir=str(where.logs) if local else "",
        shm_dir=record.shm_dir if local else f"/dev/shm/disagctl-{record.uid}",  # noqa: S108  # a name, on another machine
        advertise="127.0.0.1" if local else "",
        dead_man_s=spec.lifetime.dead_man_s,
        transport=spec.transport.mode,
        pipeline=spec.pipeline.mode,
        prefetch=spec.pipeline.prefetch,
        trusted=tuple(spec.transport.trusted_networks),
        mooncake=spec.transport.mooncake,
        relay=relay_prefix(spec),
        encoder_cache=spec.pipeline.encoder_cache,
    )
    return Recipe(
        template,
        record.name,
        record.uid,
        made.wishes if made is not None else ON_THIS_MACHINE,
        tuple(entry.id for entry in spec.models if Path(entry.id).is_absolute()),
        tuple(spec.secrets),
        record.plan,
        made.parts if made is not None else {},
        spec.budget.max_usd_per_hour,
        spec.budget.max_usd_total,
        head_row(record),
    )


def relay_prefix(spec: Spec) -> str:
    """Where in the store this service's objects are; empty without a store."""
    return f"{spec.transport.relay.rstrip('/')}/disagctl/{spec.name}" if spec.transport.relay else ""


def bracketed(host: str) -> str:
    """As it stands in a URL."""
    return f"[{host}]" if ":" in host else host
