"""What the planner answers. Plain data, encodable by msgspec; ``to_json`` gives CONTRACT's plan document."""

from typing import Any, Literal

import msgspec

from planner.domain import Offer, Shape


class Route(msgspec.Struct, frozen=True):
    """How many requests of a shape a row serves; in a bundle, each passes through all of its stages there."""

    shape: Shape
    rate_per_min: float


class Row(msgspec.Struct, frozen=True):
    """Replicas of one stage (or bundle) on one offer.

    ``nodes``: nodes of the offer on which the row's replicas stand; rows may share a node, then ``usd_per_hour`` is the
    row's part of it, by GPUs. ``headroom_gib``: usable memory of a GPU less what the row needs. ``error``: of the seconds.
    """

    model: str
    stage: str
    offer: Offer
    nodes: int
    replicas: int
    gpus_per_replica: int
    seconds_per_request: float
    utilisation: float
    usd_per_hour: float
    source: str
    routes: tuple[Route, ...]
    precision: str = "bf16"
    headroom_gib: float = 0.0
    usd_per_1000: float = 0.0
    error: float = 0.0
    origin: str = ""
    load_s: float = 0.0


class NodeCount(msgspec.Struct, frozen=True):
    """What is rented: the truth about money. ``gpus_idle``: GPUs of these nodes that no row uses."""

    offer: Offer
    nodes: int
    usd_per_hour: float
    gpus_idle: int = 0


class Alternative(msgspec.Struct, frozen=True):
    """Another way to serve the same load: what it would cost and why it lost. ``usd_per_hour`` None: no such plan."""

    name: str
    usd_per_hour: float | None
    feasible: bool
    why: str
    p95_s: float | None = None


class SolverReport(msgspec.Struct, frozen=True):
    """How the answer was found. status: optimal | time_limit; ``seconds``: inside the solver, all solves together."""

    status: str
    gap: float
    seconds: float
    name: str = "highs"
    rounds: int = 1
    options: int = 0
    columns: int = 0


class QueueRule(msgspec.Struct, frozen=True):
    """The capacity rule that was in force: load ≤ a·replicas − h. ``wait_multiple``: tail wait over mean service."""

    model: str
    stage: str
    a: float
    h: float
    wait_multiple: float | None = None
    cell: str = ""
    load: float = 0.0
    replicas: int = 0


class ServiceRule(msgspec.Struct, frozen=True):
    """Mean seconds of service of a class ≤ ``share`` of its SLO. ``p95_s``: the estimate for the plan."""

    model: str
    shape: Shape
    share: float
    slo_p95_s: float | None
    p95_s: float
    service_s: float = 0.0


class Plan(msgspec.Struct, frozen=True, tag="plan"):
    """The answer. ``throughput_per_min``: the load that was asked for, which it carries; ``capacity_per_min``: what it could.

    ``p95_s``: the worst class's estimate. ``egress_usd_per_hour`` is within ``usd_per_hour``; change penalties are not.
    """

    usd_per_hour: float
    throughput_per_min: float
    capacity_per_min: float
    p95_s: float
    rows: tuple[Row, ...]
    nodes: tuple[NodeCount, ...]
    solver: SolverReport
    queues: tuple[QueueRule, ...] = ()
    classes: tuple[ServiceRule, ...] = ()
    alternatives: tuple[Alternative, ...] = ()
    egress_usd_per_hour: float = 0.0
    usd_per_1000: float = 0.0
    warnings: tuple[str, ...] = ()


class Infeasible(msgspec.Struct, frozen=True, tag="infeasible"):
    """No plan. ``constraint``: the one that binds, e.g. ``max_nodes``, ``slo``, ``memory``, ``budget``, ``spot_share``.

    ``relaxation``: the smallest change that would do, in words; "" when none was found.
    """

    kind: Literal["infeasible", "over_budget", "no_profile"]
    constraint: str
    why: str
    relaxation: str = ""
    usd_per_hour: float | None = None  # over_budget: what it would cost


class Explanation(msgspec.Struct, frozen=True):
    """Why a GPU was, or was not, chosen for a stage. ``facts``: lines of numbers behind ``verdict``."""

    stage: str
    gpu: str
    chosen: bool
    verdict: str
    facts: tuple[str, ...] = ()
    usd_per_hour: float | None = None  # of the cheapest plan that is made to use it


class NodeChange(msgspec.Struct, frozen=True):
    """Nodes of one offer before and after."""

    offer: Offer
    before: int
    after: int


class ReplicaChange(msgspec.Struct, frozen=True):
    """Replicas of one stage on one type of GPU before and after."""

    model: str
    stage: str
    gpu: str
    before: int
    after: int


class PlanDiff(msgspec.Struct, frozen=True):
    """What changes from one plan to another."""

    nodes: tuple[NodeChange, ...]
    replicas: tuple[ReplicaChange, ...]
    usd_per_hour_before: float
    usd_per_hour_after: float


def to_json(plan: Plan | Infeasible) -> dict[str, Any]:
    """CONTRACT's plan document, without ``schema_version`` (the caller's)."""
    document: dict[str, Any] = msgspec.to_builtins(plan)
    del document["type"]
    return {"feasible": isinstance(plan, Plan), **document}
