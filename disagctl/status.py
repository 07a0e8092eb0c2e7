"""The status view, put together from ledger, roster and nodes. Pure reading."""

import os
import socket
from collections import Counter
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, Final

import msgspec

from disagctl import __version__, clock
from disagctl.distances import expected_routes
from disagctl.engine import Engine
from disagctl.load_watch import Kept, mean
from disagctl.roster import WorkerState
from disagctl.store.rows import NodeRow
from disagctl.views import (
    ClassView,
    HeadView,
    LoopView,
    NodeView,
    RequestCounts,
    RouteView,
    ServiceState,
    StageView,
    StatusView,
    WorkerView,
)
from planner.domain import Offer, Role, Shape
from planner.run.fleet import UNKNOWN
from planner.run.ledger import Ledger

if TYPE_CHECKING:
    from disagctl.head import Head

RECENT_EVENTS: Final = 20
PERCENTILE: Final = 0.95


def status_view(head: "Head") -> StatusView:
    """Everything there is to show."""
    stages = [stage_view(head, role) for role in head.engine.roster.wanted]
    now = head.engine.clock()
    return StatusView(
        name=head.name,
        state=_state(head, stages),
        endpoint=head.endpoint,
        head=HeadView(os.getpid(), socket.gethostname(), __version__, head.started_at),
        usd_per_hour=head.nodes.book.usd_per_hour(),
        usd_total=head.nodes.book.usd_total(clock.wall_s()),
        budget=head.budget,
        stages=stages,
        nodes=[node_view(row, clock.wall_s()) for row in head.nodes.book.paid if row.state != "gone"],
        workers=[_watched(head, worker_view(head.engine.ledger, w)) for w in head.engine.roster.workers.values()],
        routes=_routes(head),
        requests=_counts(head, stages),
        events=head.events_log.last(RECENT_EVENTS),
        requests_per_min=float(sum(1 for t in head.finished_at if now - t <= 60.0)),
        p95_s=percentile(head.latencies_s),
        loop=_loop_view(head),
        classes=[_class_view(head, model, shape, kept) for (model, shape), kept in head.load_watch.classes.items()],
        troubles=list(head.nodes.failures.values()),
    )


def stage_view(head: "Head", role: Role) -> StageView:
    """One (model, stage)."""
    engine = head.engine
    members = engine.roster.in_role(role)
    ready = [w for w in members if is_ready(engine.ledger, w)]
    draining = [w for w in members if w.id in engine.roster.draining]
    leases = list(engine.ledger.leased(role))
    computing = {lease.worker for lease in leases if lease.started}
    leaving = [w for w in engine.roster.workers.values() if w.role != role and w.has == role and has_tasks(engine, w)]
    seconds, times = engine.tally.durations.get(role, ()), head.load_watch.times[role]
    computed, remembered = engine.tally.remembered.get(role, (0, 0))
    return StageView(
        model=role.model,
        stage=role.stage,
        desired=engine.roster.wanted[role],
        ready=len(ready),
        switching=len(members) - len(ready) - len(draining),
        draining=len(draining) + len(leaving),
        queued=engine.ledger.queued(role),
        running=len(leases),
        busy=len(computing) / len(ready) if ready else 0.0,
        seconds_per_request=sum(seconds) / len(seconds) if seconds else None,
        p95_s=percentile(seconds),
        slo_attainment=head.load_watch.attainment(role.model),
        pinned=role in head.controller.pins,
        utilisation=head.load_watch.utilisation(role, engine.clock()),
        load_s=mean(times.load_s),
        unpark_s=mean(times.unpark_s),
        switch_s=mean(times.switch_s),
        fetch_s=mean(times.fetch_s),
        computed=computed,
        remembered=remembered,
        batch=mean_batch(engine.tally.batches.get(role, ())),
    )


def mean_batch(sizes: Collection[int]) -> float | None:
    """Of batches, given for each result the size of its batch; None of nothing."""
    return len(sizes) / sum(1 / size for size in sizes) if sizes else None


def is_ready(ledger: Ledger, worker: WorkerState) -> bool:
    """Whether it takes tasks of the role that it is to have."""
    return worker.role is not None and ledger.takes(worker.id) == worker.role


def has_tasks(engine: Engine, worker: WorkerState) -> bool:
    """Whether it has work to finish."""
    known = engine.ledger.workers.get(worker.id)
    return known is not None and bool(known.leases)


def worker_view(ledger: Ledger, worker: WorkerState) -> WorkerView:
    """One worker process."""
    known = ledger.workers.get(worker.id)
    leases = [] if known is None else [request.lease for r in known.leases if (request := ledger.requests.get(r))]
    busy = any(lease is not None and lease.started for lease in leases)
    role = worker.role or UNKNOWN
    return WorkerView(
        worker.id, worker.node, role.model, role.stage, _worker_state(ledger, worker, busy=busy), worker.pid, busy,
        gpu=worker.gpu, rss_bytes=worker.rss_bytes, load_s=worker.load_s, why=worker.why, failed=worker.fatal,
        gpus=1 if known is None else known.gpus, degree=next(map(ledger.degree, leases), None), on_gpus=list(worker.gpus),
    )  # fmt: skip


def _loop_view(head: "Head") -> LoopView:
    view = head.controller.view()
    view.off = head.loop_off if head.spec.policy.scaling != "static" else ""
    return view


def _watched(head: "Head", view: WorkerView) -> WorkerView:
    view.utilisation = head.load_watch.worker_utilisation(view.id)
    return view


def _worker_state(ledger: Ledger, worker: WorkerState, *, busy: bool) -> str:
    known = ledger.workers.get(worker.id)
    if not worker.running:
        return "lost"
    if worker.phase in ("starting", "loading", "switching"):
        return worker.phase
    if known is None:
        return "lost"
    return "draining" if known.draining else "busy" if busy else "ready"


def percentile(values: Iterable[float], share: float = PERCENTILE) -> float | None:
    """Nearest-rank percentile."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else None


def _state(head: "Head", stages: list[StageView]) -> ServiceState:
    if head.stopping:
        return "stopping"
    switching = Counter(w.role for w in head.engine.roster.workers.values() if w.phase == "switching" and w.running)
    if all(_served(stage, switching[Role(stage.model, stage.stage)]) for stage in stages):
        return "ready"
    return "degraded" if head.was_ready else "starting"


def _served(stage: StageView, switching: int) -> bool:
    """Whether nothing is amiss: who switches was sent there, but somebody must serve meanwhile, whatever is wished for."""
    return stage.ready > 0 and stage.ready + switching >= stage.desired


def node_view(row: NodeRow, now: float) -> NodeView:
    """One machine; ``now``: wall clock."""
    offers = msgspec.json.decode(row.offers, type=list[Offer])
    return NodeView(
        row.id, row.provider, row.offer, row.state, now - row.created_at,
        row.usd_per_hour if row.billed_from is not None else 0.0, row.usd(now), row.offer.endswith(" spot"),
        offers[0].accelerator if offers else "", row.wish, row.provider_id, row.why,
    )  # fmt: skip


def _routes(head: "Head") -> list[RouteView]:
    """A row a pair of workers that tensors went between; before any did, one a pair of stages with what is to be expected.

    Nodes that cannot reach each other are told in any case.
    """
    known, notes = head.engine.routes, head.engine.routes.notes
    rows = [
        RouteView(source, target, via.transport, "set in the spec" if via.transport == head.transport else via.why)
        for (source, target), via in known.used_pairs.items()
    ]
    pairs = [
        (Role(m.name, a), Role(m.name, b))
        for m in head.models()
        for a, b in zip(m.card.stages, m.card.stages[1:], strict=False)
    ]
    expected = expected_routes(head.engine.roster, pairs, head.transport)
    rows += [row for row in expected if not known.used_pairs or row.transport == "unreachable"]
    if notes:
        for row in rows:
            note = notes.get(row.target.partition(".")[0]) or next(iter(notes.values()))
            row.why = f"{row.why}; {note}"
    return rows


def _class_view(head: "Head", model: str, shape: Shape, kept: Kept) -> ClassView:
    attained = sum(kept.in_time) / len(kept.in_time) if kept.in_time else None
    return ClassView(
        model,
        str(shape),
        kept.finished,
        percentile(kept.latencies_s),
        head.load_watch.objective(model, shape),
        attained,
    )


def _counts(head: "Head", stages: list[StageView]) -> RequestCounts:
    counts, ledger = head.counts, head.engine.ledger
    open_now = len(ledger.requests)
    running = min(open_now, sum(stage.running for stage in stages))
    return RequestCounts(
        accepted=counts["accepted"],
        queued=open_now - running,
        running=running,
        succeeded=counts["succeeded"],
        failed=counts["failed"],
        cancelled=counts["cancelled"],
        fenced=ledger.fenced,
        redelivered=ledger.redelivered,
        pauses=ledger.pauses,
    )
