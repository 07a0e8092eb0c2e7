"""A plan made by hand, for what comes after the planner."""

from planner.domain import Offer, Shape
from planner.plan import Alternative, NodeCount, Plan, Route, Row, ServiceRule, SolverReport

CLIP = Shape(832, 480, 81, 50)
H100S = Offer("nebius", "eu-north1", "gpu-h100-sxm_8gpu-128vcpu-1600gb", "H100", 8, True, 12.8, where="prices.csv:2")
CARD = Offer("vast", "BritishColumbia", "2x-RTX_4090-32-65536", "RTX4090", 2, False, 0.79, where="prices.csv:3")
ROUTES = (Route(CLIP, 12.0),)
DENOISE = Row(
    "wan", "denoise", H100S, 10, 10, 8, 37.5, 0.75, 128.0, "estimated", ROUTES, headroom_gib=51.1, usd_per_1000=177.78,
    error=0.89, origin="carried",
)  # fmt: skip
ENDS = Row(
    "wan",
    "encode+decode",
    CARD,
    1,
    2,
    1,
    6.43,
    0.64,
    0.79,
    "published",
    ROUTES,
    headroom_gib=0.4,
    usd_per_1000=1.1,
    error=0.12,
)
WHOLE = Row(
    "wan", "encode+denoise+decode", H100S, 11, 11, 8, 41.0, 0.75, 140.8, "estimated", ROUTES, headroom_gib=30.0,
    usd_per_1000=195.5, error=0.8,
)  # fmt: skip
ALTERNATIVES = (
    Alternative("whole pipeline, one GPU type", 140.8, True, "10 % dearer: every GPU waits while it decodes", 170.0),
    Alternative("one GPU type: B200", 201.0, True, "57 % dearer: B200 costs more for each PFLOP", 140.0),
    Alternative("one GPU type: RTX4090", None, False, "denoise does not fit into 23.5 GiB"),
)


def sample(*rows: Row, budget_ok: bool = True) -> Plan:
    """A plan with these rows."""
    rows = rows or (DENOISE, ENDS)
    total = sum(row.usd_per_hour for row in rows)
    return Plan(
        usd_per_hour=total, throughput_per_min=12.0, capacity_per_min=14.4, p95_s=171.0, rows=rows,
        nodes=tuple(NodeCount(row.offer, row.nodes, row.usd_per_hour, 0) for row in rows),
        solver=SolverReport("optimal", 0.0, 0.42), classes=(ServiceRule("wan", CLIP, 0.5, 180.0, 171.0, 44.0),),
        alternatives=ALTERNATIVES, usd_per_1000=total / 12 / 60 * 1000,
        warnings=("denoise: no one has measured this stage on H100; the number is estimated (±89 %)",),
    )  # fmt: skip
