"""What is said before the hub's socket is open: enrolment, and how agents and workers are started."""

import msgspec


class Bootstrap(msgspec.Struct, frozen=True):
    """What an agent is started with: a file of mode 0600 that it deletes once enrolled."""

    node: str
    enrol_endpoint: str
    head_key: str  # CURVE public key of the head, z85
    token: str  # one-time
    work_dir: str
    shm_dir: str  # where this service's shared-memory segments live
    advertise: str = "127.0.0.1"  # address other nodes reach this one by
    dead_man_s: float = 1800.0
    transport: str = "auto"
    pipeline: str = "async"
    prefetch: int = 2
    trusted: tuple[str, ...] = ()
    mooncake: str = "tcp"
    relay: str = ""
    encoder_cache: bool = False
    spot: bool = False  # its cloud may take the machine back, and says so beforehand


class Enrolled(msgspec.Struct, frozen=True, tag="enrolled"):
    """The node's key is on the list; connect to these. ``relay_key``: what objects in the store are encrypted with."""

    node: str
    hub: str
    data: str
    relay_key: bytes = b""


class WorkerBoot(msgspec.Struct, frozen=True):
    """What an agent tells a worker process: one line of JSON on its standard input, for it holds the node's key."""

    worker: str
    node: str
    host: str  # names the machine: equal hosts share memory
    hub: str
    data: str
    head_key: str
    public: str
    secret: str
    shm_dir: str
    advertise: str
    transport: str
    pipeline: str
    prefetch: int
    gpus: tuple[int, ...] = ()  # that it is shown; none: it computes on the CPU
    recorder_fd: int | None = None
    trusted: tuple[str, ...] = ()  # networks where Mooncake may be used; empty: nowhere
    mooncake: str = "tcp"  # its protocol
    relay: str = ""  # the service's prefix in the store; empty: none
    relay_key: bytes = b""
    encoder_cache: bool = False
