"""A comparison as a table: the policies, then the best of the static ratios."""

from collections.abc import Iterable

from rich.console import Group, RenderableType
from rich.text import Text

from disagctl.spec.infra import LOCAL
from disagctl.ui.tables import NOTHING, clean, percent, seconds, sparkline, table
from planner.run.fleet import NodeWish
from planner.sim.compare import Comparison
from planner.sim.report import Run

STATICS = 6
EVENTS = 8


def simulation_picture(name: str, made: Comparison, warnings: Iterable[str]) -> RenderableType:
    """What each policy made of the trace."""
    scenario = made.scenario
    fleet = ", ".join(_nodes(wish) for wish in scenario.nodes)
    head = Text(f"{clean(name)}: {len(scenario.trace.rows)} requests of {clean(scenario.trace.name)} in ", style="bold")
    head.append(f"{seconds(scenario.trace.end_s)} on {fleet}")
    parts: list[RenderableType] = [head, _table(made), *_verdicts(made)]
    dynamic = made.named("dynamic")
    if dynamic is not None and dynamic.actions:
        parts.append(_events(dynamic))
    parts += [Text(f"! {clean(text)}", style="yellow") for text in warnings]
    return Group(*parts)


def _nodes(wish: NodeWish) -> str:
    offer = wish.offers[0]
    return f"{offer.count} workers here" if offer.cloud == LOCAL else f"{wish.count} × {offer}"


def _table(made: Comparison) -> RenderableType:
    numbers = ("REQUESTS", "P95", "IN SLO", "$", "$/1000", "ACTIONS", "REBALANCE")
    found = table("POLICY", *numbers, "THROUGHPUT", right=numbers)
    still = sorted((r for r in made.runs if r.name.startswith("static:")), key=lambda run: -run.requests)
    for run in [*(r for r in made.runs if not r.name.startswith("static:")), *still[:STATICS]]:
        worst = max(run.rebalances_s, default=None)
        cost = f"{run.usd / run.requests * 1000:.2f}" if run.requests and run.usd else NOTHING
        found.add_row(
            run.name, str(run.requests), seconds(run.latency_s()), percent(run.attainment(made.scenario.slo_s)),
            f"{run.usd:.2f}" if run.usd else NOTHING, cost, str(len(run.actions)), seconds(worst), _curve(run),
        )  # fmt: skip
    return found


def _curve(run: Run, width: int = 17) -> str:
    minutes = run.by_minute()
    size = max(1, -(-len(minutes) // width))
    return sparkline([sum(minutes[i : i + size]) for i in range(0, len(minutes), size)], width)


def _verdicts(made: Comparison) -> list[RenderableType]:
    lines: list[RenderableType] = []
    best, oracle = made.best_static, made.named("oracle")
    if (over := made.over(best)) is not None and best is not None:
        lines.append(Text(f"dynamic serves {over:.3f} times what the best static ratio does ({best.name})"))
    if (over := made.over(oracle)) is not None:
        lines.append(Text(f"and {over:.3f} of what the oracle does, which knows the trace"))
    return lines


def _events(run: Run) -> RenderableType:
    found = table("AT", "WHY", "", "COUNTS", title="what dynamic did")
    for action in run.actions[:EVENTS]:
        found.add_row(seconds(action.at_s), action.code, clean(action.text), ":".join(map(str, action.counts)))
    if len(run.actions) > EVENTS:
        found.add_row("…", f"{len(run.actions) - EVENTS} more", "", "")
    return found
