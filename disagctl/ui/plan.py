"""A plan as a picture that a person can check: what, where, how full, how dear, from what numbers. Pure."""

from collections.abc import Iterator
from typing import Final

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from disagctl.planning.document import Change, PlanView, advice
from disagctl.ui.tables import bar, clean, seconds, table
from planner.domain import Offer
from planner.plan import Alternative, Explanation, Plan, Row

SOURCES: Final = {"measured": "green", "published": "cyan", "estimated": "yellow"}
TIGHT_GIB: Final = 1.0
_AGES: Final = {"?": "undated", "0 d": "of today"}
_RIGHT: Final = ("REPL", "S/REQ", "BUSY", "FREE", "$/H", "$/1000")


def plan_picture(view: PlanView) -> Group:
    """Header, rows, alternatives, advice and warnings; reads well from 100 columns on."""
    plan = view.plan
    parts: list[RenderableType] = [header(view), Text(), row_table(view)]
    parts += [
        Text(f"idle: {node.gpus_idle} GPU(s) of {node.nodes} × {place(node.offer)}", style="dim")
        for node in plan.nodes
        if node.gpus_idle
    ]
    parts += [Text(line, style="dim") for line in _shared(plan)]
    if view.change is not None:
        parts += [Text(), change_text(view.change)]
    if plan.alternatives:
        parts += [Text(), alternative_table(plan)]
    if view.explanation is not None:
        parts += [Text(), explanation_text(view.explanation)]
    notes = list(_notes(view))
    if notes:
        parts += [Text(), *notes]
    return Group(*parts)


def _shared(plan: Plan) -> Iterator[str]:
    """Nodes on which several rows stand: they are rented once."""
    for node in plan.nodes:
        rows = [row for row in plan.rows if row.offer == node.offer]
        if sum(row.nodes for row in rows) > node.nodes:
            names = ", ".join(dict.fromkeys(clean(f"{row.model} {row.stage}") for row in rows))
            yield f"shared: {node.nodes} × {clean(place(node.offer))} by {names}"


def header(view: PlanView) -> Text:
    """Three lines: money, load and time, and what the numbers rest on."""
    plan = view.plan
    text = Text(view.name, style="bold").append(f"  ${plan.usd_per_hour:.2f}/h", style="bold")
    if view.budget:
        text.append(f" of ${view.budget:.2f} ", style="default").append_text(bar(plan.usd_per_hour / view.budget))
    text.append(f"  ${cents(plan.usd_per_1000)} per 1000 requests", style="not bold")
    if plan.egress_usd_per_hour >= 0.005:
        text.append(f", ${plan.egress_usd_per_hour:.2f}/h of it for data between clouds", style="not bold")
    text.append(f"\ncarries {plan.throughput_per_min:.4g} requests/min", style="not bold")
    text.append(f" (room for {plan.capacity_per_min:.4g})", style="not bold dim")
    text.append_text(_objective(plan))
    old = f", the oldest used from {view.oldest}" if view.oldest else ""
    text.append(f"\nprices: {clean(view.prices)}{old}", style="not bold dim")
    gap = f", within {plan.solver.gap * 100:.2g} % of the optimum" if plan.solver.gap > 0.0005 else ""
    text.append(f" · {plan.solver.status.replace('_', ' ')}{gap} in {plan.solver.seconds:.1f} s", style="not bold dim")
    return text


def _objective(plan: Plan) -> Text:
    """The p95 that is tightest against what was promised."""
    bounded = [one for one in plan.classes if one.slo_p95_s]
    if not bounded:
        return Text(f"  ·  p95 {seconds(plan.p95_s)}, nothing promised")
    worst = max(bounded, key=lambda one: one.p95_s / (one.slo_p95_s or 1))
    within = worst.slo_p95_s is not None and worst.p95_s <= worst.slo_p95_s * 1.001
    text = Text("  ·  p95 ").append(seconds(worst.p95_s), style="green" if within else "bold red")
    text.append(f" of {seconds(worst.slo_p95_s)}")
    whose = f"{clean(worst.model)} " if len({one.model for one in plan.classes}) > 1 else ""
    return text.append(f" for {whose}{worst.shape}" if len(plan.classes) > 1 else "")


def row_table(view: PlanView) -> Table:
    """Two lines a row: what it is and how it does; below, where it stands and what the number is from."""
    several = len(view.stages) > 1
    made = table("STAGE", "NODES × OFFER", *_RIGHT, "SECONDS FROM", right=_RIGHT)
    made.padding = (0, 1, 0, 0)
    made.columns[0].max_width, made.columns[1].max_width, made.columns[1].overflow = 18, 32, "fold"
    for row, old in zip(view.plan.rows, view.ages, strict=True):
        offer = Text(f"{row.nodes} × {row.offer.accelerator}:{row.offer.count}", style="bold")
        offer.append(" spot" if row.offer.spot else "", style="bold yellow")
        offer.append(f"\n{clean(place(row.offer))}", style="not bold dim")
        replicas = str(row.replicas) + (f"\n×{row.gpus_per_replica} GPU" if row.gpus_per_replica > 1 else "")
        source = Text(row.source, style=SOURCES.get(row.source, "default"))
        source.append(f" ±{row.error * 100:.0f} %" if row.error else "")
        source.append(f"\nprice {_AGES.get(old, f'{old} old')}", style="dim")
        made.add_row(
            stage_name(row, view, several=several), offer, replicas, f"{row.seconds_per_request:.4g}",
            f"{row.utilisation * 100:.0f} %", _free(row), f"{row.usd_per_hour:.2f}", cents(row.usd_per_1000), source,
        )  # fmt: skip
    made.add_section()
    total = Text(f"{view.plan.usd_per_hour:.2f}", style="bold")
    made.add_row(Text("total", style="bold"), *[""] * 5, total, cents(view.plan.usd_per_1000), "")
    return made


def stage_name(row: Row, view: PlanView, *, several: bool) -> Text:
    """``denoise``, ``encode+decode``; a bundle of everything is the whole pipeline. With several models, whose."""
    everything = view.stages.get(row.model, ())
    whole = len(everything) > 1 and set(row.stage.split("+")) == set(everything)
    text = Text("whole pipeline" if whole else row.stage)
    if row.precision != "bf16":
        text.append(f" {row.precision}", style="cyan")
    return text.append(f"\n{clean(row.model)}", style="dim") if several else text


def _free(row: Row) -> Text:
    """GiB of a GPU that the row leaves."""
    digits = 0 if row.headroom_gib >= 10 else 1
    return Text(f"{row.headroom_gib:.{digits}f} G", style="yellow" if row.headroom_gib < TIGHT_GIB else "default")


def change_text(change: Change) -> Group:
    """What would be started and stopped, against the plan that runs."""
    made = change.diff
    money = f"${made.usd_per_hour_before:.2f}/h → ${made.usd_per_hour_after:.2f}/h"
    if not made.nodes and not made.replicas:
        return Group(Text("changes  ", style="bold").append(f"none: it runs so already, {money}", style="not bold"))
    weighed = (
        f"; starting and stopping weighed ${change.penalty_usd_per_hour:.2f}/h in the choice" if made.nodes else ""
    )
    lines = [Text("changes  ", style="bold").append(f"{money}{weighed}", style="not bold")]
    for one in made.nodes:
        more = one.after - one.before
        card = f"{one.offer.accelerator}:{one.offer.count}{' spot' if one.offer.spot else ''}"
        style = "green" if more > 0 else "red"
        verb = "start" if more > 0 else "stop"
        line = Text(f"  {'+' if more > 0 else '-'} {verb} {abs(more)} × {card} ", style=style)
        lines.append(line.append(f"{clean(place(one.offer))} ({one.before} → {one.after})", style="dim"))
    lines += [
        Text(f"  ~ {clean(role.model)} {role.stage} on {role.gpu}: {role.before} → {role.after} replicas", style="dim")
        for role in made.replicas
    ]
    return Group(*lines)


def alternative_table(plan: Plan) -> Table:
    """What else was looked at, the cheapest first."""
    made = table("ALTERNATIVE", "$/H", "", "P95", "WHY NOT", right=("$/H", "", "P95"))
    made.padding = (0, 1, 0, 0)
    made.columns[0].max_width = 30
    for other in sorted(plan.alternatives, key=lambda one: (not one.feasible, one.usd_per_hour or 0.0)):
        cost = "no plan" if other.usd_per_hour is None else f"{other.usd_per_hour:.2f}"
        made.add_row(
            clean(other.name), cost, _more(other, plan), seconds(other.p95_s), Text(clean(other.why), style="dim")
        )
    return made


def _more(other: Alternative, plan: Plan) -> str:
    if other.usd_per_hour is None or plan.usd_per_hour <= 0:
        return ""
    return f"{(other.usd_per_hour / plan.usd_per_hour - 1) * 100:+.0f} %"


def explanation_text(found: Explanation) -> Group:
    """Why, or why not, with the numbers."""
    head = Text(f"{clean(found.gpu)} for {clean(found.stage)}: ", style="bold")
    return Group(head.append(clean(found.verdict), style="not bold"), *(_marked(" ", fact) for fact in found.facts))


def _marked(mark: str, text: str) -> Table:
    """A paragraph that hangs behind its mark."""
    made = Table.grid(padding=(0, 1))
    made.add_column(no_wrap=True)
    made.add_column()
    made.add_row(Text(mark, style="bold yellow"), Text(clean(text), style="default" if mark.strip() else "dim"))
    return made


def _notes(view: PlanView) -> Iterator[RenderableType]:
    said = advice(view)
    if said:
        yield Text("advice  ", style="bold green").append(clean(said), style="not bold default")
    for warning in view.warnings:
        yield _marked("!", warning)


def cents(usd: float) -> str:
    """Two digits behind the point; less than a cent with the digits that it has."""
    return f"{usd:.2f}" if usd >= 0.01 or usd <= 0 else f"{usd:.1g}"


def place(offer: Offer) -> str:
    """Where, and what kind of machine."""
    return f"{offer.cloud}/{offer.region} {offer.instance_type}"
