"""A request for a node as a SkyPilot task, and SkyPilot's resources as an offer."""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from disagctl.provision.base import NodeRequest
from disagctl.provision.sky.names import labels
from planner.domain import Offer
from task_templates.kit import AGENT, HEAD, template

NO_AUTOSTOP: Final = frozenset(
    {"slurm"}
)  # there the agent's job cancels its own allocation (task_templates/kit/agent.sh)
OWN_SHAPES: Final = frozenset({"slurm", "kubernetes", "k8s", "ssh"})  # the catalog's instance types are not SkyPilot's
SHARED_FILES: Final = frozenset({"slurm"})  # nodes see the files of whoever submits


def task_of(request: NodeRequest, kit: Path, folder: Path, extra: str) -> dict[str, Any]:
    """The task of one machine, an agent's or the head's."""
    return agent_task(request, kit, folder, extra) if request.head is None else head_task(request, kit, folder)


def head_task(request: NodeRequest, kit: Path, folder: Path) -> dict[str, Any]:
    """The task of the head's own machine. Raises ValueError without ``request.head``."""
    if request.head is None:
        raise ValueError("this is an agent's machine")
    task = template(HEAD)
    base = task["resources"] | {"ports": list(request.head.ports)}
    tags = labels(request.uid, request.node, request.intent)
    task["resources"] = {"ordered": [base_with(base, offer, tags) for offer in request.offers]}
    task["envs"] |= {
        "DISAGCTL_EXTRA": f"sky:{','.join(request.head.clouds)}",
        "DISAGCTL_SERVICE": request.service,
        "DISAGCTL_UID": request.uid,
        "DISAGCTL_AGENTS": request.head.agent_extra,
    }
    region = next((offer.region for offer in request.offers if offer.cloud.lower() == "aws" and offer.region), "")
    if region:  # boto3 asks nobody before it knows of some region, and only a person's configuration names one
        task["envs"]["AWS_DEFAULT_REGION"] = region
    task["file_mounts"] = {"~/disagctl/kit": str(kit)} | _secrets(request, folder)
    task["file_mounts"] |= {f"~/disagctl/models/{at}": path for at, path in enumerate(request.folders)}
    return task


def agent_task(request: NodeRequest, kit: Path, folder: Path, extra: str) -> dict[str, Any]:
    """The task of one node, as SkyPilot's YAML has it. ``folder`` holds bootstrap.json and perhaps secrets.env."""
    task = template(AGENT)
    base = task["resources"]
    tags = labels(request.uid, request.node, request.intent)
    task["resources"] = {"ordered": [base_with(base, offer, tags) for offer in request.offers]}
    task["envs"]["DISAGCTL_EXTRA"] = extra
    task["run"] = str(task["run"]).replace("agent.sh", request.script)
    mounts = {"~/disagctl/kit": str(kit), "~/disagctl/bootstrap.json": str(folder / "bootstrap.json")}
    mounts |= _secrets(request, folder)
    if not all(offer.cloud.lower() in SHARED_FILES for offer in request.offers):
        mounts |= {path: path for path in request.folders}
    task["file_mounts"] = mounts
    return task


def _secrets(request: NodeRequest, folder: Path) -> dict[str, str]:
    return {"~/disagctl/secrets.env": str(folder / "secrets.env")} if request.secrets else {}


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
