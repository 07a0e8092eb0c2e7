"""What the head shows: status, jobs and events, as the structs that the admin API, the CLI and the live view share.

Field names are those of the documented JSON. These are snapshots: plain data, made by the head, rendered by ``disagctl.ui``.
"""

from typing import Any, Literal

import msgspec

SCHEMA_VERSION = 1

ServiceState = Literal["starting", "ready", "degraded", "stopping", "head_down"]
JobStatus = Literal["queued", "running", "succeeded", "failed", "cancelled"]


class HeadView(msgspec.Struct):
    """The head process."""

    pid: int | None
    host: str
    version: str
    started_at: float


class StageView(msgspec.Struct):
    """One (model, stage). busy: fraction of ready workers computing. seconds: moving means over the last requests.

    switching: workers on their way into this stage; draining: those that finish their work before they leave it.
    utilisation: fraction of the last minute that its workers computed. load_s, unpark_s (from the host's memory),
    switch_s (finishing other work, then loading), fetch_s (the input's way here): means of recent ones.
    """

    model: str
    stage: str
    desired: int = 0
    ready: int = 0
    switching: int = 0
    draining: int = 0
    queued: int = 0
    running: int = 0
    busy: float = 0.0
    seconds_per_request: float | None = None
    p95_s: float | None = None
    slo_attainment: float | None = None
    pinned: bool = False
    utilisation: float | None = None
    load_s: float | None = None
    unpark_s: float | None = None
    switch_s: float | None = None
    fetch_s: float | None = None
    computed: int = 0  # of a stage with a cache: results it computed, and results it had remembered
    remembered: int = 0
    batch: float | None = None  # requests that were computed at once, in the mean of recent batches


class LoopView(msgspec.Struct):
    """The control loop. decisions: number by reason; ``why``: of the last one. core_share: of one core, since its start.
    ``off``: why counts stay as they are although the spec asks for more than ``static``.

    seconds: of one request of a shape, by ``role@GPU``, as measured. delays: seconds to load and to drain a role, and to launch
    a machine (expected until measured).
    """

    mode: str = "static"
    pinned: dict[str, int] = {}
    arrivals_per_min: dict[str, float] = {}
    mix: dict[str, dict[str, float]] = {}  # of each model's requests, the share of each shape
    corrections: dict[str, float] = {}  # measured over expected seconds, by role and GPU
    cooldown_s: float = 0.0
    decisions: dict[str, int] = {}
    why: str = ""
    switches: int = 0
    tick_ms: float = 0.0
    core_share: float = 0.0
    seconds: dict[str, dict[str, float]] = {}
    delays: dict[str, float] = {}
    off: str = ""


class NodeView(msgspec.Struct):
    """One machine."""

    id: str
    provider: str
    offer: str
    state: str
    age_s: float
    usd_per_hour: float = 0.0
    usd: float = 0.0  # spent on it so far
    spot: bool = False
    accelerator: str = ""  # what its workers count as: another type may stand in for it
    wish: str = ""
    provider_id: str = ""
    why: str = ""


class TroubleView(msgspec.Struct):
    """Machines that could not be had. kind: no_capacity | impossible | credentials | quota | over_budget | awaiting_release |
    error; awaiting_release: the budget has room once another machine is gone.

    ``tried``: every place that was asked, with its answer.
    """

    wish: str
    kind: str
    why: str
    tried: list[str]
    failures: int
    given_up: bool


class WorkerView(msgspec.Struct):
    """One worker process. ``why`` says what keeps it from being ready. ``utilisation``: the fraction of the last minute or so
    that it computed; None: not known yet. ``gpus``: that it has to spread a task over; ``degree``: those that its present task
    is spread over, None: it has no task, or one GPU. ``on_gpus``: its node's GPUs that it is on; ``gpu``: the first."""

    id: str
    node: str
    model: str
    stage: str
    state: str
    pid: int
    busy: bool
    gpu: int | None = None
    rss_bytes: int = 0
    load_s: float | None = None
    why: str = ""
    failed: bool = False  # its role cannot be loaded and no retry will help
    utilisation: float | None = None
    gpus: int = 1
    degree: int | None = None
    on_gpus: list[int] = []


class RouteView(msgspec.Struct, rename={"source": "from", "target": "to"}):
    """How tensors travel between two workers (before any did: between two stages), and why so."""

    source: str
    target: str
    transport: str
    why: str


class ClassView(msgspec.Struct):
    """Requests of one model and shape, by the recent results of this head. ``objective_s``: as promised now."""

    model: str
    shape: str
    finished: int
    p95_s: float | None = None
    objective_s: float | None = None
    slo_attainment: float | None = None


class RequestCounts(msgspec.Struct):
    """Since the service was created."""

    accepted: int = 0
    queued: int = 0
    running: int = 0
    succeeded: int = 0
    failed: int = 0
    cancelled: int = 0
    fenced: int = 0  # late results of an old epoch, refused
    redelivered: int = 0
    pauses: int = 0  # tasks stopped between two steps, to go on later or elsewhere


class EventView(msgspec.Struct):
    """Something that happened and why. ``at``: seconds since the epoch."""

    at: float
    kind: str
    why: str
    seq: int = 0


class StatusView(msgspec.Struct):
    """The whole service."""

    name: str
    state: ServiceState
    endpoint: str
    head: HeadView
    usd_per_hour: float = 0.0
    usd_total: float = 0.0
    budget: dict[str, float] | None = None
    stages: list[StageView] = msgspec.field(default_factory=list)
    nodes: list[NodeView] = msgspec.field(default_factory=list)
    workers: list[WorkerView] = msgspec.field(default_factory=list)
    routes: list[RouteView] = msgspec.field(default_factory=list)
    requests: RequestCounts = msgspec.field(default_factory=RequestCounts)
    events: list[EventView] = msgspec.field(default_factory=list)
    requests_per_min: float | None = None  # succeeded over the last minute
    p95_s: float | None = None
    loop: LoopView | None = None
    classes: list[ClassView] = msgspec.field(default_factory=list)
    troubles: list[TroubleView] = msgspec.field(default_factory=list)
    schema_version: int = SCHEMA_VERSION


class JobError(msgspec.Struct):
    """Why a job failed. code: dead_letter | cancelled | bad_request | …"""

    code: str
    message: str
    param: str | None = None


class ItemView(msgspec.Struct):
    """One picture or video of a job. ``id`` fetches its content."""

    id: str
    status: JobStatus
    seed: int
    mime: str | None = None
    nbytes: int = 0
    checksum: str | None = None  # xxh3-64, hexadecimal
    attempts: int = 0


class JobView(msgspec.Struct):
    """One accepted request; ``n`` items share it. progress: 0–100 over all items and stages. ``degree``: as of its worker."""

    id: str
    kind: Literal["image", "video"]
    model: str
    status: JobStatus
    progress: int
    created_at: float
    params: dict[str, Any]
    items: list[ItemView]
    stage: str | None = None
    step: int = 0
    steps: int = 0
    degree: int | None = None
    started_at: float | None = None
    completed_at: float | None = None
    error: JobError | None = None
    version: int = 0  # grows with every change; a poller waits for one above the version it has seen
    schema_version: int = SCHEMA_VERSION


class NodeCost(msgspec.Struct):
    """One machine. ``seconds``: for which it is paid."""

    id: str
    offer: str
    state: str
    seconds: float
    usd_per_hour: float
    usd: float


class StageCost(msgspec.Struct):
    """One (model, stage): its part of the machines that were rented for it."""

    stage: str
    usd: float
    usd_per_1000: float | None


class CostView(msgspec.Struct):
    """A service's spending so far. ``requests``: pictures and videos made."""

    name: str
    usd_total: float
    usd_per_hour: float
    requests: int
    usd_per_1000: float | None
    stages: list[StageCost]
    nodes: list[NodeCost]
    schema_version: int = SCHEMA_VERSION
