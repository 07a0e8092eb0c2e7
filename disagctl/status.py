"""The status view, put together from ledger, roster and nodes. Pure reading."""

import os
import socket
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

import msgspec

from disagctl import __version__, clock
from disagctl.roster import WorkerState
from disagctl.routes import route_views
from disagctl.store.rows import NodeRow
from disagctl.views import (
    HeadView,
    NodeView,
    RequestCounts,
    RouteView,
    ServiceState,
    StageView,
    StatusView,
    WorkerView,
)
from planner.domain import Offer, Role
from planner.run.ledger import Ledger

if TYPE_CHECKING:
    from disagctl.head import Head

RECENT_EVENTS: Final = 20
PERCENTILE: Final = 0.95


def status_view(head: "Head") -> StatusView:
    """Everything there is to show."""
    stages = [stage_view(head, role) for role in head.engine.roster.wanted]
    now = head.engine.clock()
    gpus = {plan.slot: plan.gpu for plan in head.engine.roster.plans}
    return StatusView(
        name=head.name,
        state=_state(head, stages),
        endpoint=head.endpoint,
        head=HeadView(os.getpid(), socket.gethostname(), __version__, head.started_at),
        usd_per_hour=head.nodes.book.usd_per_hour(),
        usd_total=head.nodes.book.usd_total(clock.wall_s()),
        budget=head.budget,
        stages=stages,
        nodes=[node_view(row, clock.wall_s()) for row in head.nodes.open],
        workers=[worker_view(head.engine.ledger, w, gpus.get(w.slot)) for w in head.engine.roster.workers.values()],
        routes=_routes(head),
        requests=_counts(head, stages),
        events=head.events_log.last(RECENT_EVENTS),
        requests_per_min=float(sum(1 for t in head.finished_at if now - t <= 60.0)),
        p95_s=percentile(head.latencies_s),
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
    seconds = engine.durations.get(role, [])
    return StageView(
        model=role.model,
        stage=role.stage,
        desired=engine.roster.wanted[role],
        ready=len(ready),
        switching=len(members) - len(ready) - len(draining),
        draining=len(draining),
        queued=engine.ledger.queued(role),
        running=len(leases),
        busy=len(computing) / len(ready) if ready else 0.0,
        seconds_per_request=sum(seconds) / len(seconds) if seconds else None,
        p95_s=percentile(seconds),
    )


def is_ready(ledger: Ledger, worker: WorkerState) -> bool:
    """Whether it takes tasks."""
    known = ledger.workers.get(worker.id)
    return known is not None and not known.draining


def worker_view(ledger: Ledger, worker: WorkerState, gpu: int | None = None) -> WorkerView:
    """One worker process."""
    known = ledger.workers.get(worker.id)
    busy = known is not None and any(
        (request := ledger.requests.get(r)) is not None and request.lease is not None and request.lease.started
        for r in known.leases
    )
    state = worker.phase
    if not worker.running:
        state = "lost"
    elif known is not None and known.draining:
        state = "draining"
    elif known is not None:
        state = "busy" if busy else "ready"
    elif state == "ready":
        state = "lost"
    return WorkerView(
        worker.id, worker.node, worker.role.model, worker.role.stage, state, worker.pid, busy, gpu=gpu,
        rss_bytes=worker.rss_bytes, load_s=worker.load_s, why=worker.why, failed=worker.fatal,
    )  # fmt: skip


def percentile(values: Iterable[float], share: float = PERCENTILE) -> float | None:
    """Nearest-rank percentile."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else None


def _state(head: "Head", stages: list[StageView]) -> ServiceState:
    if head.stopping:
        return "stopping"
    if all(stage.ready >= stage.desired for stage in stages):
        return "ready"
    return "degraded" if head.was_ready else "starting"


def node_view(row: NodeRow, now: float) -> NodeView:
    """One machine; ``now``: wall clock."""
    offers = msgspec.json.decode(row.offers, type=list[Offer])
    return NodeView(
        row.id, row.provider, row.offer, row.state, now - row.created_at,
        row.usd_per_hour if row.billed_from is not None else 0.0, row.usd(now), row.offer.endswith(" spot"),
        offers[0].accelerator if offers else "", row.wish, row.provider_id, row.why,
    )  # fmt: skip


def _routes(head: "Head") -> list[RouteView]:
    pairs = [
        (Role(m.name, a), Role(m.name, b))
        for m in head.models()
        for a, b in zip(m.card.stages, m.card.stages[1:], strict=False)
    ]
    return route_views(head.engine.roster, pairs, head.transport)


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
    )
