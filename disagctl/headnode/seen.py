"""The nodes that this machine last saw a distant head have: what can be named when that head's machine is lost."""

from pathlib import Path

import msgspec

from disagctl.state import ServicePaths, write_private
from disagctl.views import NodeView, StatusView


def remember(where: ServicePaths, view: StatusView) -> None:
    """Keep them, when they are others than before."""
    data = msgspec.json.encode([msgspec.structs.replace(node, age_s=0.0, usd=0.0) for node in view.nodes])
    path = _file(where)
    if not path.exists() or path.read_bytes() != data:
        write_private(path, data)


def told(where: ServicePaths) -> str:
    """Those that were rented, in one line; empty when there were none."""
    try:
        nodes = msgspec.json.decode(_file(where).read_bytes(), type=list[NodeView])
    except (FileNotFoundError, msgspec.DecodeError):
        return ""
    return ", ".join(
        f"{node.provider_id or node.id} ({node.offer}, ${node.usd_per_hour:.2f}/h)" for node in nodes if node.wish
    )


def _file(where: ServicePaths) -> Path:
    return where.root / "seen.json"
