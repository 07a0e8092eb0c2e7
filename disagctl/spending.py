"""What a service has cost: node-seconds × price, by machine and by stage. Works without a head; pure but for reading."""

import msgspec

from disagctl import clock
from disagctl.state import ServicePaths, read_record
from disagctl.store.offline import nodes, outcomes
from disagctl.store.rows import NodeRow
from disagctl.views import SCHEMA_VERSION

IDLE = "unassigned"  # machines that were rented for no stage in particular


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


def cost_of(where: ServicePaths) -> CostView:
    """From the store. Raises UsageError when there is no such service."""
    record = read_record(where)
    made = int(outcomes(where.store).get("succeeded", 0))
    return cost_view(record.name, nodes(where.store), made, clock.wall_s())


def cost_view(name: str, rows: list[NodeRow], made: int, now: float) -> CostView:
    """``now``: wall clock; ``made``: requests that succeeded."""
    by_stage: dict[str, float] = {}
    for row in rows:
        parts = msgspec.json.decode(row.parts, type=dict[str, float])
        whole = sum(parts.values())
        for stage, part in parts.items() if whole else [(IDLE, 1.0)]:
            by_stage[stage] = by_stage.get(stage, 0.0) + row.usd(now) * (part / whole if whole else 1.0)
    total = sum(row.usd(now) for row in rows)
    return CostView(
        name,
        total,
        sum(row.usd_per_hour for row in rows if row.state != "gone" and row.billed_from is not None),
        made,
        _per_1000(total, made),
        [StageCost(stage, usd, _per_1000(usd, made)) for stage, usd in by_stage.items()],
        [NodeCost(row.id, row.offer, row.state, _seconds(row, now), row.usd_per_hour, row.usd(now)) for row in rows],
    )


def _per_1000(usd: float, made: int) -> float | None:
    return usd / made * 1000 if made else None


def _seconds(row: NodeRow, now: float) -> float:
    return max(0.0, (row.closed_at or now) - row.billed_from) if row.billed_from is not None else 0.0
