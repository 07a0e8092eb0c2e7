"""The shared vocabulary. Pure data: everything else of ours may import this, it imports nothing of ours."""

import msgspec


class Role(msgspec.Struct, frozen=True, cache_hash=True):
    """What a worker is for: one stage of one model of the service."""

    model: str
    stage: str

    def __str__(self) -> str:
        return f"{self.model}.{self.stage}"


class TaskRef(msgspec.Struct, frozen=True, array_like=True, cache_hash=True):
    """Names one attempt at one stage of one request. ``epoch`` fences late results: it only ever grows."""

    request: str
    stage: str
    epoch: int

    @property
    def key(self) -> str:
        """The name under which the stage's output is held by its producer."""
        return f"{self.request}/{self.stage}/{self.epoch}"


class Batch(msgspec.Struct, frozen=True, array_like=True):
    """A task may be computed together with others of the same label, ``most`` at once."""

    label: str
    most: int


# --- planning ----------------------------------------------------------------------------------------------------


class Shape(msgspec.Struct, frozen=True, order=True, cache_hash=True):
    """What a request asks for. ``guidance``: whether each step takes two forward passes (classifier-free guidance)."""

    width: int
    height: int
    frames: int = 1
    steps: int = 1
    guidance: bool = False

    def __str__(self) -> str:
        clip = f"×{self.frames}f" if self.frames > 1 else ""
        return f"{self.width}x{self.height}{clip} {self.steps} steps"


class Gpu(msgspec.Struct, frozen=True):
    """One type of accelerator; dense rates, no sparsity. ``usable_gib``: what a process can really allocate."""

    name: str  # SkyPilot's canonical name
    memory_gib: float
    usable_gib: float
    bandwidth_gbs: float
    tflops: float  # bf16 (fp16 where the card has no bf16), accumulating in fp32
    fp8_tflops: float = 0.0
    bf16: bool = True
    note: str = ""


class Offer(msgspec.Struct, frozen=True):
    """A priced SKU. ``usd_per_hour`` is of the whole node. ``max_nodes`` None: no known bound.

    ``kind``: a label for rules that admit some offers only (StageRule.kinds); offers of unlike kinds are never pooled.
    """

    cloud: str
    region: str
    instance_type: str
    accelerator: str
    count: int
    spot: bool
    usd_per_hour: float
    max_nodes: int | None = None
    launch_s: float = 300.0
    where: str = ""  # file:line, for messages
    kind: str = ""

    def __str__(self) -> str:
        gpus = f" {self.accelerator}:{self.count}" if self.accelerator else ""
        return f"{self.cloud}/{self.region} {self.instance_type}{gpus}{' spot' if self.spot else ''}"


class Profile(msgspec.Struct, frozen=True):
    """Seconds and memory of one stage (or bundle) for one shape on one type of GPU. source: measured|published|estimated.

    ``seconds``: one batch on ``gpus`` GPUs. ``error``: relative half-width of the band around it. ``origin``: file:line
    or URL, and anything a reader should know (weights random, offloaded …).
    """

    model: str
    stage: str
    gpu: str
    shape: Shape
    seconds: float
    peak_gib: float
    source: str
    gpus: int = 1
    precision: str = "bf16"
    batch: int = 1
    weights_gib: float | None = None
    load_s: float | None = None
    error: float | None = None
    origin: str = ""


class RequestClass(msgspec.Struct, frozen=True):
    """Requests of one model and shape. Rate in requests a second; ``p95_s`` None: no objective."""

    model: str
    shape: Shape
    rate_per_s: float
    p95_s: float | None = None


class Workload(msgspec.Struct, frozen=True):
    """All classes; ``cv2``: squared coefficient of variation of the time between arrivals (1: Poisson)."""

    classes: tuple[RequestClass, ...]
    cv2: float = 1.0


class Defect(msgspec.Struct, frozen=True):
    """A row that was rejected (``fatal``) or is doubtful, and why. ``where``: file:line."""

    where: str
    message: str
    fatal: bool = False


class StageCost(msgspec.Struct, frozen=True):
    """The work of one stage for one shape. PFLOP (1e15; a multiply-add is two) of ONE forward pass; ``passes``: how many.

    ``megavoxels``: output pixels × frames / 1e6 (what a VAE's time follows). ``activation_gib``: beside the weights, at bf16.
    ``output_mib``: what is handed to the next stage.
    """

    shape: Shape
    linear_pflop: float = 0.0
    attention_pflop: float = 0.0
    passes: int = 1
    megavoxels: float = 0.0
    activation_gib: float = 0.0
    output_mib: float = 0.0


class StageFacts(msgspec.Struct, frozen=True):
    """What a model's config says of one stage. ``weights_gib`` at bf16; ``kind``: text | transformer | vae | other.

    ``linear_share``: of the weights, what can be quantised. ``streamed_gib``: on the GPU at once when offloaded, at bf16.
    """

    stage: str
    kind: str
    params_b: float
    weights_gib: float
    costs: tuple[StageCost, ...] = ()
    linear_share: float = 0.0
    streamed_gib: float | None = None


class ModelFacts(msgspec.Struct, frozen=True):
    """What a model's config says, in the order in which its stages run. ``origin``: which config."""

    model: str
    stages: tuple[StageFacts, ...]
    origin: str = ""


class Prediction(msgspec.Struct, frozen=True):
    """Seconds and memory of one stage, or bundle, for one shape on ``gpus`` GPUs of a type, for ONE request.

    ``source``: measured | published | estimated; ``error``: relative half-width of the band; ``origin``: what it stands on.
    """

    seconds: float
    peak_gib: float
    source: str
    error: float
    origin: str
    weights_gib: float | None = None
    load_s: float | None = None
