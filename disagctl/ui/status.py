"""A StatusView as a picture: header, stages, workers, nodes, what happened. Pure; the clock is an argument."""

import time
from collections.abc import Iterable, Sequence
from typing import Final

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from disagctl.ui.tables import NOTHING, bar, clean, nbytes, percent, seconds, sparkline, state, table
from disagctl.views import EventView, NodeView, StageView, StatusView, WorkerView

EVENTS_SHOWN: Final = 8
EVENTS_MOST: Final = 20
FIXED_LINES: Final = 12  # header, headings and the blank lines between
_NUMBERS: Final = ("READY", "SWITCH", "DRAIN", "QUEUE", "RUN", "S/REQ", "P95")  # fits 80 columns


def service_status(view: StatusView, *, now: float, history: Sequence[float] = (), height: int | None = None) -> Group:
    """The whole service. ``history``: requests a minute, oldest first. ``height``: lines there are; the feed gives way."""
    parts: list[RenderableType] = [header(view, now=now, history=history)]
    several = len({stage.model for stage in view.stages}) > 1
    if view.stages:
        parts += [Text(), stage_table(view.stages, several=several)]
    if view.workers:
        parts += [Text(), worker_table(in_order(view), several=several)]
    nodes = view.nodes if any(node.provider != "local" for node in view.nodes) else []
    if nodes:
        parts += [Text(), node_table(nodes)]
    lines = FIXED_LINES + len(view.stages) + len(view.workers) + (len(nodes) + 3 if nodes else 0)
    room = EVENTS_SHOWN if height is None else height - lines
    feed = list(view.events)[-max(0, min(room, EVENTS_MOST)) :] if room > 0 else []
    if feed:
        parts += [Text(), event_feed(feed)]
    return Group(*parts)


def header(view: StatusView, *, now: float, history: Sequence[float] = ()) -> Text:
    """Two or three lines: what it is, how it does, how much it has done."""
    text = Text(no_wrap=True, overflow="ellipsis")
    text.append(view.name, style="bold").append("  ● ", style=state(view.state).style).append_text(state(view.state))
    text.append(f"  {view.endpoint}", style="underline")
    if view.head.pid is not None:
        text.append(f"  up {seconds(max(0.0, now - view.head.started_at))}", style="dim")
    text.append("\n").append_text(_money(view))
    if view.requests_per_min is not None:
        text.append(f"{view.requests_per_min:.1f} req/min ")
        text.append(sparkline(history), style="cyan").append("  " if history else " ")
    if view.p95_s is not None:
        text.append(f"p95 {seconds(view.p95_s)}")
    counts = view.requests
    text.append(f"\n{counts.queued} queued · {counts.running} running · {counts.succeeded} done · ")
    text.append(f"{counts.failed} failed", style="bold red" if counts.failed else "default")
    text.append(f" · {counts.cancelled} cancelled")
    if counts.redelivered:
        text.append(f" · {counts.redelivered} redelivered", style="dim")
    if view.state == "head_down":
        text.append("\nno head: what was accepted is kept — disagctl up SPEC starts it again", style="yellow")
    return text


def _money(view: StatusView) -> Text:
    text = Text(f"${view.usd_per_hour:.2f}/h")
    limit = (view.budget or {}).get("max_usd_per_hour")
    if limit:
        text.append(f" of ${limit:.2f} ").append_text(bar(view.usd_per_hour / limit))
    if view.usd_total:
        text.append(f"  ${view.usd_total:.2f} spent")
    return text.append("  ")


def stage_table(stages: Iterable[StageView], *, several: bool) -> Table:
    """A row a stage."""
    made = table("STAGE", *_NUMBERS[:5], "BUSY", *_NUMBERS[5:], right=_NUMBERS)
    made.columns[6].no_wrap = True
    for stage in stages:
        ready = Text(f"{stage.ready}/{stage.desired}", style="green" if stage.ready >= stage.desired else "yellow")
        busy = (
            bar(stage.busy, 5).append(f" {percent(stage.busy):>5}", style="default") if stage.ready else Text(NOTHING)
        )
        numbers = [_count(value) for value in (stage.switching, stage.draining, stage.queued, stage.running)]
        times = (seconds(stage.seconds_per_request), seconds(stage.p95_s))
        made.add_row(role(stage.model, stage.stage, several=several), ready, *numbers, busy, *times)
    return made


def worker_table(workers: Iterable[WorkerView], *, several: bool) -> Table:
    """A row a worker; the last column says what keeps it from being ready."""
    made = table("WORKER", "STAGE", "STATE", "GPU", "LOAD", "MEMORY", "", right=("LOAD", "MEMORY"))
    for worker in workers:
        gpu = NOTHING if worker.gpu is None else str(worker.gpu)
        memory = nbytes(worker.rss_bytes) if worker.rss_bytes else NOTHING
        why = Text(clean(worker.why), style="bold red" if worker.failed else "yellow")
        name = role(worker.model, worker.stage, several=several)
        made.add_row(worker.id, name, state(worker.state), gpu, seconds(worker.load_s), memory, why)
    return made


def in_order(view: StatusView) -> list[WorkerView]:
    """The workers, stage after stage."""
    places = {(stage.model, stage.stage): place for place, stage in enumerate(view.stages)}
    return sorted(view.workers, key=lambda w: (places.get((w.model, w.stage), len(places)), w.id))


def node_table(nodes: Iterable[NodeView]) -> Table:
    """A row a machine."""
    made = table("NODE", "OFFER", "STATE", "AGE", "$/H", right=("AGE", "$/H"))
    for node in nodes:
        made.add_row(node.id, clean(node.offer), state(node.state), seconds(node.age_s), f"{node.usd_per_hour:.2f}")
    return made


def event_feed(events: Iterable[EventView]) -> Table:
    """What happened and why, the newest last."""
    made = Table.grid(padding=(0, 2))
    made.add_column(style="dim", no_wrap=True)
    made.add_column(style="cyan", no_wrap=True)
    made.add_column(overflow="ellipsis", no_wrap=True)
    for event in events:
        made.add_row(clock_time(event.at), clean(event.kind), clean(event.why))
    return made


def role(model: str, stage: str, *, several: bool) -> str:
    """A stage's name; with its model's where there are several."""
    return f"{model}.{stage}" if several else stage


def clock_time(at: float) -> str:
    """Local time of day."""
    return time.strftime("%H:%M:%S", time.localtime(at))


def _count(value: int) -> Text:
    return Text(str(value), style="default" if value else "dim")
