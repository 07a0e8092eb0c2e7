"""A plan, recomputed from the request alone: offers, profiles and the rules the plan says were in force. Shares no code with
the program that made it, so that a mistake in one shows in the other."""

from collections import defaultdict
from collections.abc import Iterator

from planner.facts.perf import Book
from planner.plan.market import in_infra, matches, sku
from planner.plan.request import PlanRequest
from planner.plan.result import Plan, Row

TOLERANCE = 1e-5


def check(request: PlanRequest, plan: Plan) -> list[str]:
    """What is wrong with a plan; [] when nothing is."""
    book = Book(request.profiles, request.facts, request.gpus)
    return [
        *_demand(request, plan, book),
        *_rows(request, plan, book),
        *_queues(request, plan, book),
        *_nodes(request, plan),
        *_money(request, plan),
        *_rules(request, plan),
        *(
            f"{c.model} {c.shape}: p95 {c.p95_s:.1f} s over {c.slo_p95_s:g} s"
            for c in plan.classes
            if c.p95_s > (c.slo_p95_s or float("inf"))
        ),
    ]


def _over(have: float, limit: float) -> bool:
    return have > limit + TOLERANCE * max(1.0, abs(limit))


def _demand(request: PlanRequest, plan: Plan, book: Book) -> Iterator[str]:
    """Every class wholly served at every stage, and within one cloud the same share at every stage."""
    wanted: dict[tuple[str, object], float] = defaultdict(float)
    for item in request.workload.classes:
        wanted[item.model, item.shape] += item.rate_per_s * 60
    served: dict[tuple[str, object, str, str], float] = defaultdict(float)
    for row in plan.rows:
        for route in row.routes:
            for stage in row.stage.split("+"):
                served[row.model, route.shape, stage, "" if request.cross_cloud else row.offer.cloud] += (
                    route.rate_per_min
                )
    stages = {spec.name: spec.stages for spec in request.models if spec.stages}
    for (model, shape), rate in wanted.items():
        names = stages.get(model) or book.stages(model)
        cells = {key[3] for key in served if key[:2] == (model, shape)}
        for stage in names:
            total = sum(served.get((model, shape, stage, cell), 0.0) for cell in cells)
            if abs(total - rate) > TOLERANCE * max(rate, 1.0):
                yield f"{model} {shape}: {stage} serves {total:.6g} of {rate:.6g} a minute"
            for cell in cells:
                if abs(
                    served.get((model, shape, stage, cell), 0.0) - served.get((model, shape, names[0], cell), 0.0)
                ) > TOLERANCE * max(rate, 1.0):
                    yield f"{model} {shape}: {stage} and {names[0]} differ in {cell}"


def _load(request: PlanRequest, row: Row, book: Book) -> float:
    """Busy replicas that the routes make, from the profiles."""
    load = 0.0
    for route in row.routes:
        found = book.predict(
            row.model, row.stage, row.offer.accelerator, route.shape, row.gpus_per_replica, row.precision
        )
        load += route.rate_per_min / 60 * (found.seconds if found else float("inf"))
    return load


def _rows(request: PlanRequest, plan: Plan, book: Book) -> Iterator[str]:
    """Memory, utilisation, and seconds as the profiles have them."""
    for row in plan.rows:
        label = f"{row.model} {row.stage} on {row.offer}"
        for route in row.routes:
            found = book.predict(
                row.model, row.stage, row.offer.accelerator, route.shape, row.gpus_per_replica, row.precision
            )
            if found is None:
                yield f"{label}: no time known for {route.shape}"
            elif _over(found.peak_gib, book.gpus[row.offer.accelerator].usable_gib):
                yield f"{label}: {found.peak_gib:.1f} GiB do not fit"
        load = _load(request, row, book)
        if _over(load, request.max_utilisation * row.replicas):
            yield f"{label}: load {load:.4g} on {row.replicas} replicas"
        if abs(load - row.utilisation * row.replicas) > TOLERANCE * max(1.0, load):
            yield f"{label}: utilisation {row.utilisation:.4g}, recomputed {load / row.replicas:.4g}"


def _queues(request: PlanRequest, plan: Plan, book: Book) -> Iterator[str]:
    """Load ≤ a·replicas − h for every queue, with the plan's own a and h."""
    loads: dict[tuple[str, str, str], float] = defaultdict(float)
    counts: dict[tuple[str, str, str], int] = defaultdict(int)
    for row in plan.rows:
        key = (row.model, row.stage, "" if request.cross_cloud else row.offer.cloud)
        loads[key] += _load(request, row, book)
        counts[key] += row.replicas
    rules = {(q.model, q.stage, q.cell): q for q in plan.queues}
    for key, load in loads.items():
        if key not in rules:
            yield f"{key}: no rule stated"
        elif _over(load, rules[key].a * counts[key] - rules[key].h):
            yield f"{key}: load {load:.4g} over {rules[key].a:.3g}·{counts[key]} − {rules[key].h:.3g}"


def _nodes(request: PlanRequest, plan: Plan) -> Iterator[str]:
    """GPUs, caps, quotas, filters."""
    known = {(sku(offer), offer.usd_per_hour): offer for offer in request.offers}
    used: dict[object, int] = defaultdict(int)
    for row in plan.rows:
        used[sku(row.offer), row.offer.usd_per_hour] += row.replicas * row.gpus_per_replica
        if row.replicas > row.nodes * (row.offer.count // row.gpus_per_replica):
            yield f"{row.stage}: {row.replicas} replicas do not fit on {row.nodes} × {row.offer}"
    for one in plan.nodes:
        key = (sku(one.offer), one.offer.usd_per_hour)
        if key not in known:
            yield f"{one.offer} is not offered"
        elif known[key].max_nodes is not None and one.nodes > (known[key].max_nodes or 0):
            yield f"{one.nodes} × {one.offer}: at most {known[key].max_nodes}"
        if not in_infra(one.offer, request.infra) or (one.offer.spot and not request.spot):
            yield f"{one.offer} is ruled out"
        if used[key] + one.gpus_idle != one.nodes * one.offer.count:
            yield f"{one.offer}: {used[key]} GPUs used, {one.gpus_idle} idle, of {one.nodes * one.offer.count}"
    for quota in request.quotas:
        taken = sum(one.nodes * one.offer.count for one in plan.nodes if matches(quota, one.offer))
        if taken > quota.max_gpus:
            yield f"{taken} GPUs over a quota of {quota.max_gpus}"


def _money(request: PlanRequest, plan: Plan) -> Iterator[str]:
    """The sum, the budget, spot and pool shares."""
    spend = sum(one.nodes * one.offer.usd_per_hour for one in plan.nodes)
    if abs(spend + plan.egress_usd_per_hour - plan.usd_per_hour) > TOLERANCE * max(1.0, spend):
        yield f"costs ${spend:.4f}/h, says ${plan.usd_per_hour:.4f}/h"
    if request.max_usd_per_hour is not None and _over(plan.usd_per_hour, request.max_usd_per_hour):
        yield f"${plan.usd_per_hour:.2f}/h over ${request.max_usd_per_hour:.2f}/h"
    working = [row for row in plan.rows if row.routes]
    gpus = sum(row.replicas * row.gpus_per_replica for row in working)
    spot = sum(row.replicas * row.gpus_per_replica for row in working if row.offer.spot)
    if request.spot_share is not None and _over(spot, request.spot_share * gpus):
        yield f"{spot} of {gpus} GPUs in use are on spot"
    pools: dict[tuple[str, str, str], float] = defaultdict(float)
    for one in plan.nodes:
        if one.offer.spot:
            pools[one.offer.cloud, one.offer.region, one.offer.accelerator] += one.usd_per_hour
    for pool, usd in pools.items():
        if request.pool_share is not None and _over(usd, request.pool_share * spend):
            yield f"{'/'.join(pool)} takes {usd / spend:.0%} of the spend"


def _rules(request: PlanRequest, plan: Plan) -> Iterator[str]:
    """Restrictions of stages."""
    for rule in request.rules:
        rows = [row for row in plan.rows if row.model == rule.model and rule.stage in row.stage.split("+")]
        count = sum(row.replicas for row in rows)
        if count < rule.replicas_min or (rule.replicas_max is not None and count > rule.replicas_max):
            yield f"{rule.stage}: {count} replicas outside {rule.replicas_min}..{rule.replicas_max}"
        for row in rows:
            if rule.accelerators is not None and row.offer.accelerator not in rule.accelerators:
                yield f"{rule.stage} on {row.offer.accelerator}"
            if rule.spot is not None and row.offer.spot != rule.spot:
                yield f"{rule.stage} on {row.offer}"
            if rule.kinds is not None and row.offer.kind not in rule.kinds:
                yield f"{rule.stage} on {row.offer}, which its resources do not allow"
            if rule.max_gpus is not None and row.gpus_per_replica > rule.max_gpus:
                yield f"{rule.stage} on {row.gpus_per_replica} GPUs a replica"
            if rule.gpus is not None and row.gpus_per_replica != rule.gpus:
                yield f"{rule.stage} on {row.gpus_per_replica} GPUs a replica instead of {rule.gpus}"
