"""A request for a node as a SkyPilot task, and SkyPilot's resources as an offer."""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from disagctl.provision.base import NodeRequest
from disagctl.provision.sky.names import labels
from planner.domain import Offer
from task_templates.kit import AGENT, template

NO_AUTOSTOP: Final = frozenset(
    {"slurm"}
)  # there the agent's job cancels its own allocation (task_templates/kit/agent.sh)
OWN_SHAPES: Final = frozenset({"slurm", "kubernetes", "k8s", "ssh"})  # the catalog's instance types are not SkyPilot's
SHARED_FILES: Final = frozenset({"slurm"})  # nodes see the files of whoever submits


def agent_task(request: NodeRequest, kit: Path, folder: Path, extra: str) -> dict[str, Any]:
    """The task of one node, as SkyPilot's YAML has it. ``folder`` holds bootstrap.json and perhaps secrets.env."""
    task = template(AGENT)
    base = task["resources"]
    tags = labels(request.uid, request.node, request.intent)
    task["resources"] = {"ordered": [base_with(base, offer, tags) for offer in request.offers]}
    task["envs"]["DISAGCTL_EXTRA"] = extra
    task["run"] = str(task["run"]).replace("agent.sh", request.script)
    mounts = {"~/disagctl/kit": str(kit), "~/disagctl/bootstrap.json": str(folder / "bootstrap.json")}
    if request.secrets:
        mounts["~/disagctl/secrets.env"] = str(folder / "secrets.env")
    if not all(offer.cloud.lower() in SHARED_FILES for offer in request.offers):
        mounts |= {path: path for path in request.folders}
    task["file_mounts"] = mounts
    return task


def base_with(base: Mapping[str, Any], offer: Offer, tags: Mapping[str, str]) -> dict[str, Any]:
    """One entry of SkyPilot's ordered resources: the template's and the offer's."""
    cloud = offer.cloud.lower()
    found = {**base, "infra": f"{cloud}/{offer.region}" if offer.region else cloud, "labels": dict(tags)}
    if offer.accelerator:
        found["accelerators"] = {offer.accelerator: offer.count}
    if cloud not in OWN_SHAPES:
        found["instance_type"] = offer.instance_type
    if offer.spot:
        found["use_spot"] = True
    if cloud in NO_AUTOSTOP:
        found.pop("autostop", None)
    return found


def offer_of(resources: Any) -> Offer:
    """What was rented. SkyPilot's price, an hour; 0 where it knows none."""
    accelerators: dict[str, float] = resources.accelerators or {}
    name, count = next(iter(accelerators.items()), ("", 0))
    return Offer(
        cloud=str(resources.cloud).lower(),
        region=str(resources.region or ""),
        instance_type=str(resources.instance_type or ""),
        accelerator=name,
        count=int(count),
        spot=bool(resources.use_spot),
        usd_per_hour=float(resources.get_cost(3600)),
        where=str(resources.zone or ""),
    )


def secrets_file(values: Mapping[str, str]) -> bytes:
    """Lines that a shell reads as assignments and nothing else."""
    return "".join(f"{name}={shlex.quote(value)}\n" for name, value in values.items()).encode()
