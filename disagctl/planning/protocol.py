"""What goes to the solver's process and what comes back: msgpack of plain structs, never pickle."""

import msgspec

from planner.plan import Explanation, Infeasible, Plan, PlanRequest


class Job(msgspec.Struct):
    """``explain``: a (stage, GPU) to explain. ``sweep``: (factor on the rate, factor on the objective) to solve besides,
    in ``sweep_s``."""

    request: PlanRequest
    time_limit_s: float
    alternatives: bool = True
    explain: tuple[str, str] | None = None
    sweep: list[tuple[float, float]] = []
    sweep_s: float = 0.0
    memory_bytes: int = 0


class Point(msgspec.Struct):
    """One solve of a sweep; ``usd_per_hour`` None: there is no such plan, or no time was left for it."""

    rate_factor: float
    slo_factor: float
    usd_per_hour: float | None = None
    p95_s: float | None = None
    throughput_per_min: float | None = None


class Answer(msgspec.Struct):
    """``error``: what went wrong instead, for people; then there is no plan."""

    plan: Plan | Infeasible | None = None
    explanation: Explanation | None = None
    sweep: list[Point] = []
    error: str = ""
