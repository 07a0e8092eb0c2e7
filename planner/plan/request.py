"""What is asked of the planner. Plain data, encodable by msgspec: the solver's process gets it whole."""

import msgspec

from planner.domain import Gpu, ModelFacts, Offer, Profile, Workload


class ModelSpec(msgspec.Struct, frozen=True):
    """One model: its stages in the order in which they run, and how its weights may be held.

    ``precisions``: tried in this order, the model's own first; profiles and estimates are looked up by them. ``()`` as
    stages: taken from the facts, else from the profiles (encode, denoise, decode first, others in the order of the file).
    """

    name: str
    stages: tuple[str, ...] = ()
    precisions: tuple[str, ...] = ("bf16",)


class StageRule(msgspec.Struct, frozen=True):
    """Restrictions of one stage; a bundle must satisfy the rules of every stage in it. None: unrestricted.

    ``accelerators``: only these. ``spot``: True: spot only, False: on-demand only. ``replicas_min``/``replicas_max``:
    bounds on the replicas that serve the stage, in bundles too. ``max_gpus``: GPUs of one replica, at most.
    ``kinds``: only offers of these kinds (Offer.kind). ``precisions``: how its weights may be held (planner.precision), in
    place of the model's; ``auto`` is the model's own. ``gpus``: of one replica, exactly.
    """

    model: str
    stage: str
    accelerators: tuple[str, ...] | None = None
    spot: bool | None = None
    replicas_min: int = 0
    replicas_max: int | None = None
    max_gpus: int | None = None
    kinds: tuple[str, ...] | None = None
    precisions: tuple[str, ...] | None = None
    gpus: int | None = None


class Quota(msgspec.Struct, frozen=True):
    """At most ``max_gpus`` GPUs of all offers that match; None matches anything."""

    max_gpus: int
    cloud: str | None = None
    region: str | None = None
    accelerator: str | None = None
    spot: bool | None = None


class Running(msgspec.Struct, frozen=True):
    """Nodes of one offer that run already. The offer is matched on everything but price and caps."""

    offer: Offer
    nodes: int


class Egress(msgspec.Struct, frozen=True):
    """What a cloud takes for data that leaves it."""

    cloud: str
    usd_per_gib: float


class PlanRequest(msgspec.Struct, frozen=True):
    """Everything the planner needs; units in the names. See docs/planning.md for how each field enters the problem."""

    workload: Workload
    offers: tuple[Offer, ...]
    gpus: tuple[Gpu, ...]
    models: tuple[ModelSpec, ...] = ()  # (): one for each model of the workload
    profiles: tuple[Profile, ...] = ()
    facts: tuple[ModelFacts, ...] = ()
    max_usd_per_hour: float | None = None
    infra: tuple[str, ...] = ()  # "aws" or "aws/us-east-1"; (): every offer
    rules: tuple[StageRule, ...] = ()
    quotas: tuple[Quota, ...] = ()
    bundles: bool = True
    singles: bool = True  # False: only whole pipelines (a baseline)
    cross_cloud: bool = False
    egress: tuple[Egress, ...] = ()
    spot: bool = True  # False: on-demand offers only
    spot_share: float | None = None  # spot GPUs over all GPUs, of those in use, at most
    pool_share: float | None = None  # spend on one spot pool (cloud, region, accelerator) over all spend, at most
    max_gpus_per_replica: int = 8
    max_utilisation: float = 0.98
    running: tuple[Running, ...] = ()
    start_penalty: float = 0.15  # of a node's hourly price, for each node started beyond what runs
    stop_penalty: float = 0.02  # likewise, for each node stopped
    gap: float | None = None  # None: 0 for small problems, 1 % for large ones
