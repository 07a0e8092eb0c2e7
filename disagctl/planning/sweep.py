"""What a plot asks: the same plan at other loads and other objectives."""

from typing import Final

from disagctl.planning.protocol import Job
from planner.plan import PlanRequest

RATES: Final = (0.25, 0.5, 1.0, 1.5, 2.0, 3.0)
OBJECTIVES: Final = (0.6, 0.8, 1.0, 1.5, 2.0, 4.0)


def job_of(request: PlanRequest, limit_s: float, asked: tuple[str, str] | None, *, sweep_s: float = 0.0) -> Job:
    """The solver's job; ``sweep_s``: how long the points of a plot may take, 0 for none."""
    points: list[tuple[float, float]] = []
    if sweep_s:
        points = [(rate, 1.0) for rate in RATES]
        if any(one.p95_s is not None for one in request.workload.classes):
            points += [(1.0, slo) for slo in OBJECTIVES if slo != 1.0]
    return Job(request, limit_s, explain=asked, sweep=points, sweep_s=sweep_s)
