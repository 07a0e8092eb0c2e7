"""A StatusView as a picture: header, stages, workers, nodes, what happened. Pure; the clock is an argument."""

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from rich.cells import cell_len
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from disagctl.ui.tables import NOTHING, bar, clean, nbytes, percent, seconds, sparkline, state, table
from disagctl.views import ClassView, EventView, LoopView, NodeView, StageView, StatusView, WorkerView

EVENTS_SHOWN: Final = 8
EVENTS_MOST: Final = 20
PROMISED: Final = 0.95  # an objective is a 95th percentile
FEED_LEAST: Final = 6  # lines that the feed has of a screen, before the workers that are well
_NUMBERS: Final = ("READY", "SWITCH", "DRAIN", "GPUS", "QUEUE", "RUN", "S/REQ", "P95")
_LOOP_KINDS: Final = ("scale", "switch", "drain", "nodes")
_WELL: Final = ("ready", "busy")


def service_status(view: StatusView, *, now: float, history: Sequence[float] = (), height: int | None = None) -> Group:
    """The whole service. ``history``: requests a minute, oldest first. ``height``: lines there are.

    On a low screen the workers that are well give way first, then the feed.
    """
    several = len({stage.model for stage in view.stages}) > 1
    top = header(view, now=now, history=history)
    parts: list[RenderableType] = [top]
    used = len(top.plain.splitlines())
    if view.stages:
        parts += [Text(), stage_table(view.stages, several=several, gpus=gpus_of(view))]
        used += len(view.stages) + 3
    promised = [one for one in view.classes if one.objective_s is not None]
    if promised:
        parts += [Text(), class_table(promised, several=several)]
        used += len(promised) + 3
    nodes = view.nodes if any(node.provider != "local" for node in view.nodes) else []
    if nodes:
        used += len(nodes) + 3
    workers, feed = in_order(view), list(view.events)
    if height is None:
        feed = feed[-EVENTS_SHOWN:]
    else:
        left = height - used
        for_feed = min(len(feed), FEED_LEAST) + 1 if feed else 0
        workers = _most_telling(workers, max(left - for_feed - 3, 0))
        left -= len(workers) + 3 if workers else 0
        feed = feed[-min(left - 1, EVENTS_MOST) :] if left > 1 else []
    if workers:
        parts += [Text(), worker_table(workers, several=several)]
    if nodes:
        parts += [Text(), node_table(nodes)]
    if feed:
        parts += [Text(), event_feed(feed)]
    return Group(*parts)


def _most_telling(workers: list[WorkerView], room: int) -> list[WorkerView]:
    """All if they fit, else those that are not simply at work."""
    if len(workers) <= room:
        return workers
    return [worker for worker in workers if worker.state not in _WELL][:room]


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
    kept = [stage.slo_attainment for stage in view.stages if stage.slo_attainment is not None]
    if kept:
        text.append(f"  {percent(min(kept))} in time", style="default" if min(kept) >= PROMISED else "yellow")
    if view.loop is not None and (view.loop.mode != "static" or view.loop.off):
        text.append("\n").append_text(_loop(view.loop))
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
    most = (view.budget or {}).get("max_usd_total")
    if view.usd_total or most:
        text.append(f"  ${view.usd_total:.2f} spent" + (f" of ${most:.2f}" if most else ""))
    return text.append("  ")


def _loop(loop: LoopView) -> Text:
    """How the fleet follows the load, and what made it move last."""
    parts = [f"{loop.mode}: {clean(loop.off)}" if loop.off else loop.mode]
    if loop.arrivals_per_min:
        parts.append(f"{sum(loop.arrivals_per_min.values()):.1f} arrive/min")
    if loop.switches:
        parts.append(f"{loop.switches} switches")
    if loop.pinned:
        parts.append("pinned " + ", ".join(f"{role.rpartition('.')[2]}={n}" for role, n in loop.pinned.items()))
    if loop.cooldown_s >= 1:
        parts.append(f"waits {seconds(loop.cooldown_s)}")
    if loop.why:
        parts.append(clean(loop.why))
    return Text(" · ".join(parts), style="dim")


def gpus_of(view: StatusView) -> dict[tuple[str, str], int]:
    """GPUs that each stage's workers are on; empty where there are none."""
    found: dict[tuple[str, str], set[tuple[str, int]]] = {}
    for worker in view.workers:
        if on_gpus(worker):
            found.setdefault((worker.model, worker.stage), set()).update((worker.node, gpu) for gpu in on_gpus(worker))
    return {role: len(places) for role, places in found.items()}


def on_gpus(worker: WorkerView) -> list[int]:
    """All GPUs that it is on; none on a CPU."""
    return worker.on_gpus or ([] if worker.gpu is None else [worker.gpu])


def stage_table(
    stages: Iterable[StageView], *, several: bool, gpus: Mapping[tuple[str, str], int] | None = None
) -> Table:
    """A row a stage. ``gpus``: those it is on; without any, the tasks out with its workers are shown instead."""
    fourth = "GPUS" if gpus else "RUN"
    made = table("STAGE", "READY", "SWITCH", "DRAIN", fourth, "QUEUE", "BUSY", "S/REQ", "P95", right=_NUMBERS)
    made.columns[6].no_wrap = True
    for stage in stages:
        ready = Text(f"{stage.ready}/{stage.desired}", style="green" if stage.ready >= stage.desired else "yellow")
        share = stage.busy if stage.utilisation is None else stage.utilisation
        busy = bar(share, 5).append(f" {percent(share):>5}", style="default") if stage.ready else Text(NOTHING)
        held = gpus.get((stage.model, stage.stage), 0) if gpus else stage.running
        numbers = [_count(value) for value in (stage.switching, stage.draining, held, stage.queued)]
        times = (seconds(stage.seconds_per_request), seconds(stage.p95_s))
        made.add_row(role(stage.model, stage.stage, several=several), ready, *numbers, busy, *times)
    return made


def class_table(classes: Iterable[ClassView], *, several: bool) -> Table:
    """A row a kind of request that something is promised for."""
    made = table("REQUESTS", "DONE", "P95", "PROMISED", "KEPT", right=("DONE", "P95", "PROMISED", "KEPT"))
    for one in classes:
        name = f"{one.model} {one.shape}" if several else one.shape
        kept = NOTHING if one.slo_attainment is None else percent(one.slo_attainment)
        made.add_row(name, str(one.finished), seconds(one.p95_s), seconds(one.objective_s), kept)
    return made


def worker_table(workers: Iterable[WorkerView], *, several: bool) -> Table:
    """A row a worker; the last column says what keeps it from being ready."""
    made = table("WORKER", "STAGE", "STATE", "GPU", "LOAD", "MEMORY", "", right=("LOAD", "MEMORY"))
    for worker in workers:
        gpu = ",".join(map(str, on_gpus(worker))) or NOTHING
        if worker.gpus > 1:
            gpu = f"{gpu} ({worker.degree or 0} of {worker.gpus})"
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
    events = list(events)
    made = Table.grid(padding=(0, 2))
    made.add_column(style="dim", no_wrap=True, min_width=8)
    made.add_column(no_wrap=True, min_width=min(max((cell_len(clean(e.kind)) for e in events), default=0), 16))
    made.add_column(overflow="ellipsis", no_wrap=True)
    for event in events:
        made.add_row(clock_time(event.at), Text(clean(event.kind), _style(event.kind)), clean(event.why))
    return made


def _style(kind: str) -> str:
    """What the loop did stands out."""
    return "bold green" if kind in _LOOP_KINDS else "cyan"


def role(model: str, stage: str, *, several: bool) -> str:
    """A stage's name; with its model's where there are several."""
    return f"{model}.{stage}" if several else stage


def clock_time(at: float) -> str:
    """Local time of day."""
    return time.strftime("%H:%M:%S", time.localtime(at))


def _count(value: int) -> Text:
    return Text(str(value), style="default" if value else "dim")
