"""The keys of service.yaml, with their types and defaults. Field names carry units where the keys do not."""

from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta, field

from disagctl.spec.units import Range, Size
from planner.precision import AUTO, OFFLOAD, resolved, split_precision
from planner.run.orders import DispatchConfig, Kind
from stages.protocol import ModelSource

SYNTHETIC: Final = "synthetic"


def _unit(unit: str, *types: str, examples: list[Any]) -> Meta:
    """A quantity written with its unit; the schema says how."""
    return Meta(extra={"unit": unit}, extra_json_schema={"x-unit": unit, "x-type": list(types), "examples": examples})


Duration = Annotated[float, _unit("duration", "string", "number", examples=["180s", "30m", "7d"])]
DurationOrNever = Annotated[
    float | None, _unit("duration_or_never", "string", "number", examples=["30m", "7d", "never"])
]
Rate = Annotated[float, _unit("rate", "string", examples=["12/min", "2/s"])]
Resolution = Annotated[Size, _unit("size", "string", examples=["832x480"])]
Replicas = Annotated[Range | None, _unit("range", "string", "integer", examples=[2, "1..16"])]
Gib = Annotated[float, _unit("memory", "string", "number", examples=[50, "50GiB"])]
Positive = Annotated[float, Meta(gt=0)]
Share = Annotated[float, Meta(gt=0, le=1)]
Price = Annotated[float, Meta(ge=0, le=1000)]
Cap = Annotated[int, Meta(ge=0, le=1_000_000)]
Count = Annotated[int, Meta(ge=1, le=100_000)]
Precision = Literal["auto", "bf16", "fp16", "fp32", "int8", "fp8", "nf4"]  # planner.precision.FORMATS


class _Section(msgspec.Struct, forbid_unknown_fields=True):
    """Part of a spec."""


class Slo(_Section):
    """What is promised: seconds, or ``scale`` times what the request would take with the fleet to itself."""

    p95_s: Duration | None = field(name="p95", default=None)
    scale: Positive | None = None


class Shape(_Section):
    """A kind of request, its share of all, and what is promised for it (None: what is for its model)."""

    size: Resolution
    share: Positive = 1.0
    frames: Count = 1
    steps: Count | None = None  # None: the model's own
    guidance: float | None = None
    slo: Slo | None = None


class Workload(_Section):
    """How many requests of which kind to expect: a rate or a recorded trace."""

    rate_per_min: Rate | None = field(name="rate", default=None)
    trace: str | None = None
    shapes: list[Shape] = field(default_factory=list)


class Budget(_Section):
    """What may be spent."""

    max_usd_per_hour: Positive | None = None
    max_usd_total: Positive | None = None


class ModelEntry(_Section):
    """A model of the service. After loading ``id`` is a hub id, an absolute folder, or ``synthetic``; ``name`` is set."""

    id: str
    name: str = ""
    revision: str | None = None
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    adapter: str | None = None
    stages: dict[str, dict[str, Any]] = field(default_factory=dict)  # the synthetic model's stages
    options: dict[str, Any] = field(default_factory=dict)  # whatever another adapter understands
    workload: Workload | None = None
    slo: Slo | None = None
    priority: Annotated[int, Meta(ge=0, le=1000)] = 0


class Resources(_Section):
    """SkyPilot's own keys, so that they can be pasted."""

    accelerators: str | list[str] | dict[str, float] | None = None
    use_spot: bool | None = None
    infra: str | None = None
    cloud: str | None = None
    region: str | None = None
    zone: str | None = None
    instance_type: str | None = None
    cpus: str | None = None
    memory: str | None = None
    disk_size: str | None = None
    disk_tier: str | None = None
    network_tier: str | None = None
    image_id: str | dict[str, str] | None = None
    max_hourly_cost: Positive | None = None
    ports: str | list[str] | None = None
    labels: dict[str, str] | None = None
    accelerator_args: dict[str, Any] | None = None
    job_recovery: str | dict[str, Any] | None = None
    any_of: list[dict[str, Any]] | None = None
    ordered: list[dict[str, Any]] | None = None


class StageWish(_Section):
    """What one stage runs on, how many workers it may have, and how they hold its weights.

    ``precision``: of several the plan chooses, and without a plan the first is taken; ``auto``: the model's ``dtype``.
    ``offload``: the weights stay in the host's memory. ``gpus_per_replica``: GPUs of a node that compute a request; None: one
    here, as the plan says elsewhere.
    """

    resources: Resources = field(default_factory=Resources)
    replicas: Replicas = None  # None: one here, as many as the plan says elsewhere
    precision: Precision | list[Precision] = "auto"
    offload: bool = False
    gpus_per_replica: Annotated[int, Meta(ge=1, le=8)] | None = None

    @property
    def gpus(self) -> int:
        """GPUs of each worker."""
        return self.gpus_per_replica or 1

    @property
    def precisions(self) -> tuple[str, ...]:
        """As workers and the planner call them (planner.precision)."""
        names = [self.precision] if isinstance(self.precision, str) else self.precision
        return tuple(dict.fromkeys(name + (OFFLOAD if self.offload else "") for name in names))

    def on(self, gpus: int) -> "StageWish":
        """With so many GPUs a worker."""
        return self if gpus == self.gpus else msgspec.structs.replace(self, gpus_per_replica=gpus)

    def settled(self, precision: str, own: str) -> "StageWish":
        """With only the name that a plan chose of the list. ``own``: what ``auto`` is to the planner."""
        chosen = next((name for name in self.precisions if resolved(name, own) == precision), None)
        return self if chosen is None else msgspec.structs.replace(self, precision=split_precision(chosen)[0])


class Placement(_Section):
    """Where stages may be, and how much may hang on machines that can be taken away.

    ``max_spot_share``: of all GPUs in use, on spot. ``max_pool_share``: of all spend, on one spot pool (cloud, region, GPU).
    ``egress_usd_per_gib``: by cloud, instead of the shipped prices.
    """

    cross_cloud: bool = False
    max_spot_share: Annotated[float, Meta(ge=0, le=1)] | None = None
    max_pool_share: Share | None = None
    egress_usd_per_gib: dict[str, Price] = field(default_factory=dict)


class Quota(_Section):
    """A cap on offers: ``max_gpus`` over all that match together, or ``max_nodes`` of each, instead of the catalog's."""

    max_gpus: Cap | None = None
    max_nodes: Cap | None = None
    cloud: str | None = None
    region: str | None = None
    instance_type: str | None = None
    accelerator: str | None = None
    spot: bool | None = None


class Policy(_Section):
    """Who is served next, and how the fleet follows the load: looked at once an ``interval``.

    ``workers``: of all stages together on this machine; None: one a GPU where a stage's ``replicas`` are a range, else as
    few as may be. ``dispatch``: a name, or a mapping with its mechanisms one by one.
    """

    dispatch: Kind | DispatchConfig = "fifo"
    scaling: Literal["hybrid", "reactive", "predict", "static"] = "hybrid"
    interval_s: Duration = field(name="interval", default=5.0)
    workers: Annotated[int, Meta(ge=1, le=1000)] | None = None

    @property
    def dispatching(self) -> DispatchConfig:
        """Who is served next, in full."""
        return DispatchConfig(self.dispatch) if isinstance(self.dispatch, str) else self.dispatch


class Batches(_Section):
    """Tasks that a worker computes at once; ``wait``: so long one may wait for others while a worker idles."""

    max: Annotated[int, Meta(ge=1, le=64)] = 1
    wait_s: Duration | None = field(name="wait", default=None)


class Pipeline(_Section):
    """Whether a worker overlaps receiving, computing and sending; ``prefetch``: tasks it may hold besides, at least."""

    mode: Literal["async", "sync"] = "async"
    prefetch: Annotated[int, Meta(ge=1, le=16)] = 2
    encoder_cache: bool = True
    batch: Batches = field(default_factory=Batches)


class Transport(_Section):
    """How tensors travel."""

    mode: Literal["auto", "inline", "shm", "zmq", "mooncake", "relay"] = "auto"
    trusted_networks: list[str] = field(default_factory=list)
    mooncake: Literal["tcp", "rdma"] = "tcp"
    relay: str | None = None  # an fsspec URL


class Artifacts(_Section):
    """Where finished files stay, and how long."""

    store: str = "head"
    ttl_s: DurationOrNever = field(name="ttl", default=7 * 86400.0)
    max_gib: Gib = 50.0


class Api(_Section):
    """The inference endpoint. ``public`` wants TLS here (certificate, private_key) or in a proxy (behind_proxy)."""

    host: str = "127.0.0.1"
    port: Annotated[int, Meta(ge=1, le=65535)] | None = None
    public: bool = False
    certificate: str | None = None
    private_key: str | None = None
    behind_proxy: bool = False
    max_queued: Annotated[int, Meta(ge=1, le=10_000_000)] = 10_000


class Network(_Section):
    """``advertise``: the address of this machine that the nodes reach it by; ``auto``: that of its default route."""

    advertise: str = "auto"


class Lifetime(_Section):
    """When the service ends by itself."""

    autodown_idle_s: DurationOrNever = field(name="autodown_idle", default=1800.0)
    dead_man_s: Duration = field(name="dead_man", default=1800.0)
    scale_to_zero_s: DurationOrNever = field(name="scale_to_zero", default=None)


class Spec(_Section):
    """A service, as wished for. ``models`` is always a list: the key ``model`` is sugar for one entry."""

    name: str
    models: list[ModelEntry]
    workload: Workload | None = None
    slo: Slo = field(default_factory=Slo)
    budget: Budget = field(default_factory=Budget)
    infra: list[str] = field(default_factory=lambda: ["local"])
    stages: dict[str, StageWish] = field(default_factory=dict)  # by stage, or by model.stage
    bundles: bool = True
    placement: Placement = field(default_factory=Placement)
    quotas: list[Quota] = field(default_factory=list)
    policy: Policy = field(default_factory=Policy)
    pipeline: Pipeline = field(default_factory=Pipeline)
    transport: Transport = field(default_factory=Transport)
    artifacts: Artifacts = field(default_factory=Artifacts)
    catalog: list[str] = field(default_factory=list)  # files, ``shipped``, ``sky``; []: shipped
    profiles: str | None = None
    secrets: list[str] = field(default_factory=list)
    api: Api = field(default_factory=Api)
    network: Network = field(default_factory=Network)
    lifetime: Lifetime = field(default_factory=Lifetime)

    def wish(self, model: str, stage: str) -> StageWish:
        """What the spec says of a role; ``model.stage`` is more particular than ``stage``."""
        return self.stages.get(f"{model}.{stage}") or self.stages.get(stage) or StageWish()

    def replicas(self, model: str, stage: str) -> tuple[int, int]:
        """Fewest and most workers of a role."""
        wished = self.wish(model, stage).replicas or Range(1, 1)
        return wished.min, wished.max

    def workload_of(self, entry: ModelEntry) -> Workload:
        """The model's own workload, or the service's."""
        return entry.workload or self.workload or Workload()

    def slo_of(self, entry: ModelEntry) -> Slo:
        """The model's own objective, or the service's."""
        return entry.slo or self.slo

    def source(self, entry: ModelEntry, stage: str | None = None) -> ModelSource:
        """What a worker is told about the model, or about one stage of it."""
        options: dict[str, Any] = entry.options
        if entry.id == SYNTHETIC:
            options = entry.stages
        elif entry.stages:
            options = {**entry.options, "stages": entry.stages}
        wish = self.wish(entry.name, stage) if stage is not None else None
        precision = wish.precisions[0] if wish is not None else AUTO
        return ModelSource(
            entry.name,
            entry.id,
            entry.revision,
            entry.dtype,
            entry.adapter,
            msgspec.json.encode(options),
            precision,
            1 if wish is None else wish.gpus,
        )
