"""HTTP over the service's administration socket."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import msgspec

from disagctl.errors import UnhealthyError
from disagctl.gateway.sockets import short_path
from disagctl.headnode.seen import remember
from disagctl.headnode.ssh import tunnel
from disagctl.state import ServicePaths, read_record
from disagctl.views import StatusView

if TYPE_CHECKING:
    import httpx


@contextmanager
def admin(where: ServicePaths, timeout_s: float = 10.0) -> "Iterator[httpx.Client]":
    """A client for ``http://admin/admin/v1/…``. Its calls raise httpx.TransportError when there is no head.

    Where the head has a machine to itself, SSH leads to its socket; UnhealthyError while that machine is not up.
    """
    import httpx  # slow to import, and most verbs' --help needs none of it

    record = read_record(where)
    with tunnel(where, record) if record.away else short_path(where.admin_socket) as path:
        transport = httpx.HTTPTransport(uds=path)
        with httpx.Client(transport=transport, base_url="http://admin", timeout=timeout_s) as client:
            yield client


def head_status(where: ServicePaths, timeout_s: float = 10.0) -> StatusView | None:
    """The status, or None when no head answers."""
    import httpx

    away = where.record.exists() and read_record(where).away
    if not away and not where.admin_socket.exists():
        return None
    try:
        with admin(where, timeout_s) as client:
            answer = client.get("/admin/v1/status")
    except (httpx.TransportError, OSError, UnhealthyError):
        return None
    if answer.status_code != 200:
        return None
    view = msgspec.json.decode(answer.content, type=StatusView)
    if away:
        remember(where, view)
    return view
