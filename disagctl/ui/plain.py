"""The live view where nobody can redraw: one line for each thing that changed. Pure."""

from disagctl.ui.status import clock_time
from disagctl.ui.tables import clean, seconds
from disagctl.views import StatusView, WorkerView


def changes(before: StatusView | None, after: StatusView, *, events: bool = True) -> list[str]:
    """What is new in ``after``, a line each. The first call describes the whole state in a few lines."""
    lines: list[str] = []
    if before is None or before.state != after.state:
        lines.append(f"{after.name}: {after.state} — {readiness(after)}")
    lines += _nodes(before, after)
    known = {worker.id: worker for worker in before.workers} if before else {}
    for worker in after.workers:
        old = known.pop(worker.id, None)
        if old is None or (_settled(old), old.why) != (_settled(worker), worker.why):
            lines.append(_worker(worker))
    lines += [f"{worker_id}: gone" for worker_id in known]
    seen = max((event.seq for event in before.events), default=0) if before else 0
    if before is not None and events:
        lines += [f"{clock_time(e.at)} {clean(e.kind)}: {clean(e.why)}" for e in after.events if e.seq > seen]
    return lines


def readiness(view: StatusView) -> str:
    """``encode 1/1, denoise 1/2``: ready of wanted workers."""
    several = len({stage.model for stage in view.stages}) > 1
    names = ((f"{stage.model}.{stage.stage}" if several else stage.stage, stage) for stage in view.stages)
    return ", ".join(f"{name} {stage.ready}/{stage.desired}" for name, stage in names) or "no stages yet"


def load_line(view: StatusView) -> str:
    """The load in one line, for a watcher that writes every few seconds."""
    counts = view.requests
    rate = "" if view.requests_per_min is None else f", {view.requests_per_min:.1f} req/min"
    switching = sum(stage.switching for stage in view.stages)
    moves = f", {switching} switching" if switching else ""
    done = f"{counts.queued} queued, {counts.running} running, {counts.succeeded} done"
    return f"{view.name}: {view.state} — {done}{rate}{moves}"


def _nodes(before: StatusView | None, after: StatusView) -> list[str]:
    """Rented machines that are new or in another state; those that are gone."""
    known = {node.id: node.state for node in before.nodes} if before else {}
    rented = [node for node in after.nodes if node.provider != "local"]
    lines = [
        f"{node.id}: {node.state} — {clean(node.offer)}, ${node.usd_per_hour:.2f}/h"
        for node in rented
        if known.get(node.id) != node.state
    ]
    left = {node.id for node in after.nodes}
    return lines + [f"{node}: gone" for node in known if node not in left]


def _settled(worker: WorkerView) -> str:
    """Computing or not is no news."""
    return "ready" if worker.state == "busy" else worker.state


def _worker(worker: WorkerView) -> str:
    loaded = f", loaded in {seconds(worker.load_s)}" if worker.load_s and _settled(worker) == "ready" else ""
    why = f" — {clean(worker.why)}" if worker.why else ""
    return f"{worker.id}: {_settled(worker)}{loaded}{why}"
