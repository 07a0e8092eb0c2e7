"""The paper's service to simulate."""

from planner.domain import Shape
from planner.run.config import PolicyConfig, RoleBounds
from planner.run.decisions import Reason, SetCounts
from planner.run.fleet import NodeWish
from planner.sim.scenario import Arriving, Scenario, Trace, offer_of
from tests.planner_control.lab import LOAD_S, ROLES, seconds


def scenario(trace: Trace, workers: int = 8, slo_s: float | None = 300.0) -> Scenario:
    slo = {"wan": slo_s} if slo_s else {}
    config = PolicyConfig(roles=tuple(RoleBounds(role) for role in ROLES), load_s=LOAD_S, slo_p95_s=slo)
    node = NodeWish("h100", (offer_of("H100", workers, 32.0),), 1)
    return Scenario(trace, {"wan": tuple(r.stage for r in ROLES)}, seconds, LOAD_S, (node,), config, slo)


def steady(shape: Shape, per_min: float, duration_s: float) -> Trace:
    gap = 60 / per_min
    return Trace("steady", tuple(Arriving(round(n * gap, 3), "wan", shape) for n in range(int(duration_s / gap) + 1)))


def counted(*counts: int) -> SetCounts:
    return SetCounts(dict(zip(ROLES, counts, strict=True)), Reason("bounds", "test"))
