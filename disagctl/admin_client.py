"""HTTP over the service's administration socket."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import msgspec

from disagctl.gateway.sockets import short_path
from disagctl.state import ServicePaths
from disagctl.views import StatusView

if TYPE_CHECKING:
    import httpx


@contextmanager
def admin(where: ServicePaths, timeout_s: float = 10.0) -> "Iterator[httpx.Client]":
    """A client for ``http://admin/admin/v1/…``. Its calls raise httpx.TransportError when there is no head."""
    import httpx  # slow to import, and most verbs' --help needs none of it

    with short_path(where.admin_socket) as path:
        transport = httpx.HTTPTransport(uds=path)
        with httpx.Client(transport=transport, base_url="http://admin", timeout=timeout_s) as client:
            yield client


def head_status(where: ServicePaths, timeout_s: float = 10.0) -> StatusView | None:
    """The status, or None when no head answers."""
    import httpx

    if not where.admin_socket.exists():
        return None
    try:
        with admin(where, timeout_s) as client:
            answer = client.get("/admin/v1/status")
    except (httpx.TransportError, OSError):
        return None
    if answer.status_code != 200:
        return None
    return msgspec.json.decode(answer.content, type=StatusView)
