"""A comparison as CONTRACT's JSON document. The same seed gives the same bytes: nothing in it is measured by a clock."""

from typing import Any, Final

from planner.sim.compare import Comparison
from planner.sim.report import Run
from planner.sim.scenario import Scenario

SCHEMA_VERSION: Final = 1
DIGITS: Final = 6


def document(name: str, made: Comparison, warnings: list[str]) -> dict[str, Any]:
    """``actions``: how many; ``decisions``: the first hundred with their reasons."""
    scenario, best = made.scenario, made.best_static
    return {
        "schema_version": SCHEMA_VERSION,
        "name": name,
        "trace": {
            "name": scenario.trace.name,
            "requests": len(scenario.trace.rows),
            "seconds": _round(scenario.trace.end_s),
        },
        "workers": sum(wish.count * wish.offers[0].count for wish in scenario.nodes),
        "roles": [str(role) for role in scenario.roles],
        "fleet": [{"offer": str(wish.offers[0]), "nodes": wish.count} for wish in scenario.nodes],
        "slo_p95_s": dict(scenario.slo_s),
        "seed": scenario.seed,
        "policies": [_policy(run, scenario) for run in made.runs],
        "best_static": best.name if best else None,
        "dynamic_over_oracle": _ratio(made.over(made.named("oracle"))),
        "dynamic_over_best_static": _ratio(made.over(best)),
        "warnings": warnings,
    }


def _policy(run: Run, scenario: Scenario) -> dict[str, Any]:
    attained = run.attainment(scenario.slo_s)
    p95 = run.latency_s()
    return {
        "name": run.name,
        "requests": run.requests,
        "qpm_by_minute": list(run.by_minute()),
        "usd": _round(run.usd),
        "slo_attainment": None if attained is None else _round(attained),
        "actions": len(run.actions),
        "p95_s": None if p95 is None else _round(p95),
        "usd_per_1000": _round(run.usd / run.requests * 1000) if run.requests else None,
        "redelivered": run.redelivered,
        "rebalance_s": [_round(seconds) for seconds in run.rebalances_s[:100]],
        "decisions": [
            {"at_s": _round(a.at_s), "kind": a.kind, "code": a.code, "why": a.text, "counts": list(a.counts)}
            for a in run.actions[:100]
        ],
    }


def _round(value: float) -> float:
    return round(value, DIGITS)


def _ratio(value: float | None) -> float | None:
    return None if value is None else _round(value)
