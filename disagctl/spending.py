"""What a service has cost: node-seconds × price, by machine and by stage. Works without a head; pure but for reading."""

import msgspec

from disagctl import clock
from disagctl.state import ServicePaths, ServiceRecord, read_record
from disagctl.store.offline import nodes, outcomes
from disagctl.store.rows import NodeRow
from disagctl.views import CostView, NodeCost, StageCost

IDLE = "unassigned"  # machines that were rented for no stage in particular
HEAD = "head"  # the machine that the head has to itself: its name, and the stage it counts for


def cost_of(where: ServicePaths) -> CostView:
    """From the store. Raises UsageError when there is no such service."""
    record = read_record(where)
    made = int(outcomes(where.store).get("succeeded", 0))
    row = head_row(record)
    return cost_view(record.name, nodes(where.store) + ([row] if row is not None else []), made, clock.wall_s())


def head_row(record: ServiceRecord) -> NodeRow | None:
    """The machine that the head has to itself, as a row like the others'."""
    head = record.head
    if head is None:
        return None
    return NodeRow(
        HEAD, "sky", head.offer, head.usd_per_hour, "", None, "up" if head.host else "launching", head.created_at,
        intent=head.intent, parts=msgspec.json.encode({HEAD: 1.0}), reserved=head.usd_per_hour,
        provider_id=head.provider_id, request_id=head.request_id, billed_from=head.billed_from,
    )  # fmt: skip


def spent_on_head(record: ServiceRecord, now: float) -> float:
    """USD by then (wall clock)."""
    row = head_row(record)
    return row.usd(now) if row is not None else 0.0


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
