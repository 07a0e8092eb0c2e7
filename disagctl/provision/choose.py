"""Which provider makes a service's machines."""

from pathlib import Path
from typing import Final

from disagctl.provision.base import Provisioner
from disagctl.provision.handed import HandedProvisioner
from disagctl.provision.local import LocalProvisioner
from disagctl.spec import Spec
from disagctl.spec.schema import SYNTHETIC
from disagctl.state import ServicePaths, ServiceRecord, home

LOCAL: Final = ["local"]


def provisioner_of(where: ServicePaths, record: ServiceRecord, *, torch: bool = True) -> Provisioner:
    """For a service that exists. ``torch``: whether its workers need it. Raises UsageError when SkyPilot is not installed."""
    if record.infra == LOCAL:
        return LocalProvisioner(where)
    if record.renter:
        return HandedProvisioner(Path(record.renter))
    return rented(record.name, record.uid, torch=torch)


def torch_needed(spec: Spec) -> bool:
    """Whether any of its models is a real one."""
    return any(entry.id != SYNTHETIC for entry in spec.models)


def rented(service: str, uid: str, *, torch: bool = True) -> Provisioner:
    """Machines that SkyPilot rents; ``uid`` may be that of a service which is no more."""
    from disagctl.provision.sky import SkyProvisioner  # slow to import, and only some services need it

    return SkyProvisioner(service, uid, sky_folder(), "auto" if torch else "core")


def sky_folder() -> Path:
    """What all services of this state directory share for renting."""
    folder = home() / "sky"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder
