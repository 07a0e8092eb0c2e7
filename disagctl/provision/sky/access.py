"""Which credentials SkyPilot would copy to machines, and the way into a machine by SSH. Like ``client``, its calls block."""

import functools
from collections.abc import Iterable
from typing import Final

import msgspec

from disagctl.errors import UnexpectedError
from disagctl.provision.sky.client import library

OWN_IDENTITY: Final = frozenset(
    {"aws", "gcp", "azure", "slurm"}
)  # machines there can end themselves without our credentials
TAKES_ORDERS: Final = (*sorted(OWN_IDENTITY), "kubernetes", "nebius", "oci", "ssh", "vast")  # have `remote_identity`


class WayIn(msgspec.Struct, frozen=True):
    """How to reach a machine by SSH. ``key``: the private key itself. ``proxy``: ssh's ProxyCommand, or nothing."""

    host: str
    port: int
    user: str
    key: str
    proxy: str = ""


@functools.cache
def withhold(rented: frozenset[str]) -> None:
    """From now on no machine gets a cloud's credentials, unless it is rented from that cloud and could not end itself
    without them. SkyPilot by itself copies those of every cloud to every machine. What its own configuration says stays."""
    library()
    from sky import skypilot_config

    orders = [
        f"{cloud}.remote_identity=NO_UPLOAD"
        for cloud in TAKES_ORDERS
        if (cloud in OWN_IDENTITY or cloud not in rented)
        and skypilot_config.get_nested((cloud, "remote_identity"), None) is None
    ]
    skypilot_config.apply_cli_config(orders)


def copied(rented: Iterable[str]) -> list[str]:
    """The credential files that SkyPilot would copy to a machine all the same."""
    library()
    from sky import check, clouds, skypilot_config
    from sky.utils import registry

    withhold(frozenset(rented))
    kept: list[clouds.Cloud] = [
        cloud
        for name, cloud in registry.CLOUD_REGISTRY.items()
        if skypilot_config.get_nested((name, "remote_identity"), None) not in {None, "LOCAL_CREDENTIALS"}
    ]
    return sorted(check.get_cloud_credential_file_mounts(kept))


def way_in(cluster: str) -> WayIn:
    """Into the cluster's only machine. Raises UnexpectedError when SkyPilot does not know it."""
    sky = library()
    records = sky.get(sky.status([cluster], _include_credentials=True))
    credentials = records[0].get("credentials") if records else None
    handle = records[0]["handle"] if records else None
    if not credentials or handle is None or not handle.head_ip:
        raise UnexpectedError(f"SkyPilot does not say how to reach {cluster}")
    return WayIn(
        str(handle.head_ip), int(handle.head_ssh_port or 22), str(credentials["ssh_user"]),
        str(credentials["ssh_private_key_content"]), str(credentials.get("ssh_proxy_command") or ""),
    )  # fmt: skip
