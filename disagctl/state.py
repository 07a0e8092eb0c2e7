"""Where a service lives on this machine: ``<home>/services/<name>/``, all of it readable by the owner only.

    service.json    the record: ports, uid, pids of the head (ServiceRecord)
    service.yaml    the spec as it was accepted, with absolute paths
    plan.json       the plan that was shown, deployment.json what is rented by it (not for infra: local)
    head.lock       held by the one head that runs
    ledger.db       requests, nodes, events (SQLite, WAL)
    keys.json       the head's CURVE pair (0600)
    admin.sock      administration (0600)
    head.key        with head.known_hosts: SSH to the head, where that has a machine to itself; the rest is there then
    artifacts/      finished files       inputs/   uploaded pictures
    logs/           head.log, <node>.log, <worker>.log
    nodes/<node>/   an agent's bootstrap file and pid file

Shared-memory segments are the one thing outside: ``shm_dir``.
"""

import os
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

import msgspec
import platformdirs

from disagctl.errors import UsageError
from disagctl.settings import home_override
from planner.domain import Offer

NAME = re.compile(r"[a-z](?:[a-z0-9-]{0,38}[a-z0-9])?")


class HeadNode(msgspec.Struct):
    """The machine that a head has to itself, rented by ``up``. Written before it is asked for, as every machine's row is.

    ``offers``: where it may come from. ``usd_per_hour``: until it is known, of the dearest. ``host`` and what follows: how
    SSH reaches it, empty until it is up.
    """

    intent: str
    offers: tuple[Offer, ...]
    offer: str
    usd_per_hour: float
    created_at: float
    provider_id: str = ""
    request_id: str = ""
    billed_from: float | None = None
    host: str = ""
    port: int = 22
    user: str = ""
    proxy: str = ""


class ServiceRecord(msgspec.Struct):
    """What has to survive the head: how to find it and how to come back as the same service."""

    name: str
    uid: str  # random, tags everything this service makes
    created_at: float
    http_host: str
    http_port: int
    hub_port: int
    data_port: int
    enrol_port: int
    shm_dir: str
    infra: list[str]
    head_pid: int | None = None
    head_started: float | None = None  # psutil's create_time: a pid alone may have been reused
    head_started_at: float = 0.0
    stopping: bool = False
    usd_per_hour: float = 0.0
    tls: bool = False
    bind: str = "127.0.0.1"  # where hub, data and enrolment listen
    advertise: str = "127.0.0.1"  # the address that nodes reach them by
    plan: str = ""  # names the plan in use; "" for ``infra: local``
    head: HeadNode | None = None  # when the head has a machine to itself
    head_gone_at: float | None = None  # since when that is lost, and the nodes it rented are nobody's to list
    renter: str = ""  # there: the socket of the process that rents for it

    @property
    def away(self) -> bool:
        """Whether the head is on another machine than this one."""
        return self.head is not None and not self.renter

    @property
    def url(self) -> str:
        """Where clients find the API; of a head that listens everywhere, by the address that others reach it by."""
        everywhere = self.http_host in {"0.0.0.0", "::"} and self.head is not None  # noqa: S104  # compared, not bound
        host = self.advertise if everywhere else self.http_host
        host = f"[{host}]" if ":" in host else host
        return f"{'https' if self.tls else 'http'}://{host}:{self.http_port}"

    @property
    def ports(self) -> set[int]:
        """Every port that is the service's own, also while its head is away."""
        return {self.http_port, self.hub_port, self.data_port, self.enrol_port}


@dataclass(frozen=True, slots=True)
class ServicePaths:
    """Paths of one service."""

    root: Path

    @property
    def name(self) -> str:
        """The service's name."""
        return self.root.name

    @property
    def record(self) -> Path:
        """service.json."""
        return self.root / "service.json"

    @property
    def spec(self) -> Path:
        """The accepted spec."""
        return self.root / "service.yaml"

    @property
    def plan(self) -> Path:
        """What is rented, and why: the plan (Deployment)."""
        return self.root / "deployment.json"

    @property
    def lease(self) -> Path:
        """Locked by the head that runs: there is never a second one."""
        return self.root / "head.lock"

    @property
    def store(self) -> Path:
        """The SQLite file."""
        return self.root / "ledger.db"

    @property
    def keys(self) -> Path:
        """The head's key pair."""
        return self.root / "keys.json"

    @property
    def admin_socket(self) -> Path:
        """The administration socket."""
        return self.root / "admin.sock"

    @property
    def head_key(self) -> Path:
        """The SSH key of the machine that the head has to itself."""
        return self.root / "head.key"

    @property
    def head_hosts(self) -> Path:
        """Its host key, as it was when we first met."""
        return self.root / "head.known_hosts"

    @property
    def artifacts(self) -> Path:
        """Finished files."""
        return self.root / "artifacts"

    @property
    def inputs(self) -> Path:
        """Uploaded pictures."""
        return self.root / "inputs"

    @property
    def logs(self) -> Path:
        """Log files."""
        return self.root / "logs"

    @property
    def nodes(self) -> Path:
        """A folder a node."""
        return self.root / "nodes"

    def make(self) -> None:
        """Create the folders, mode 0700."""
        for folder in (self.root, self.artifacts, self.inputs, self.logs, self.nodes):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)


def home() -> Path:
    """The state directory: ``DISAGCTL_HOME``, else the platform's user state directory. Created with mode 0700."""
    override = home_override()
    path = Path(override) if override else Path(platformdirs.user_state_dir("disagctl"))
    path = path.expanduser().absolute()
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path


def paths(name: str) -> ServicePaths:
    """Paths of the service ``name``. Raises UsageError for a name that cannot be one."""
    if not NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} is not a service name",
            why="names are lower-case letters, digits and dashes, at most 40",
            next="disagctl status lists the services",
        )
    return ServicePaths(home() / "services" / name)


def services() -> list[ServicePaths]:
    """All services of this state directory, by name."""
    root = home() / "services"
    return [ServicePaths(p) for p in sorted(root.iterdir()) if (p / "service.json").is_file()] if root.is_dir() else []


def service_of(item_id: str) -> str:
    """The service named in a request id (``img_<name>_<random>``). Raises UsageError."""
    parts = item_id.split("_")
    if len(parts) != 3 or parts[0] not in {"img", "video"} or not NAME.fullmatch(parts[1]):
        raise UsageError(f"{item_id!r} is not a request id", why="ids look like img_NAME_… or video_NAME_…")
    return parts[1]


def read_record(where: ServicePaths) -> ServiceRecord:
    """Read service.json. Raises UsageError when there is no such service."""
    try:
        return msgspec.json.decode(where.record.read_bytes(), type=ServiceRecord)
    except FileNotFoundError:
        known = ", ".join(p.name for p in services()) or "none"
        raise UsageError(
            f"no service named {where.name!r}",
            why=f"services here: {known}",
            next="disagctl up SPEC makes one",
            code="unknown_service",
        ) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as err:
        raise UsageError(f"{where.record} is damaged", why=str(err), next=f"disagctl down {where.name} -y") from err


def write_record(where: ServicePaths, record: ServiceRecord) -> None:
    """Write service.json atomically and durably."""
    write_private(where.record, msgspec.json.format(msgspec.json.encode(record)))


def write_private(path: Path, data: bytes) -> None:
    """Replace ``path`` with ``data``: mode 0600 from the first byte on, fsynced, renamed."""
    fd, tmp = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(tmp).replace(path)
    except BaseException:
        Path(tmp).unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
