"""From a found solution to the plan document."""

from planner.plan.engine import Found, Scene
from planner.plan.lay import lay_out
from planner.plan.result import Plan, QueueRule, Row, ServiceRule, SolverReport

WIDE = 0.25  # an error band worth a warning


def make_plan(scene: Scene, found: Found) -> Plan:
    """The plan, without alternatives."""
    request = scene.universe.request
    rows, nodes = lay_out(found.model, found.solution.values)
    rate = sum(item.rate_per_s for item in request.workload.classes)
    rent = sum(one.usd_per_hour for one in nodes)
    queues = tuple(
        QueueRule(model, bundle, a, h, multiple, cell, state.load, state.replicas)
        for (model, bundle, cell), state in found.outlook.queues.items()
        for a, h, multiple in [found.model.rules.queues[model, bundle]]
    )
    opened = {(queue.model, queue.stage) for queue in queues}
    queues += tuple(
        QueueRule(model, bundle, a, h, multiple)
        for (model, bundle), (a, h, multiple) in found.model.rules.queues.items()
        if (model, bundle) not in opened
    )
    classes = tuple(
        ServiceRule(
            item.model,
            item.shape,
            found.model.rules.share.get(k, 1.0),
            item.p95_s,
            found.outlook.p95_s[k],
            found.outlook.service_s[k],
        )
        for k, item in enumerate(request.workload.classes)
    )
    return Plan(
        usd_per_hour=found.usd_per_hour,
        throughput_per_min=rate * 60,
        capacity_per_min=rate * 60 * found.outlook.growth,
        p95_s=max(found.outlook.p95_s.values()),
        rows=rows,
        nodes=nodes,
        solver=SolverReport(
            status=found.solution.status,
            gap=found.solution.gap,
            seconds=scene.spent_s,
            name=found.solution.solver,
            rounds=scene.rounds,
            options=len(scene.universe.options),
            columns=len(found.model.problem.cost),
        ),
        queues=queues,
        classes=classes,
        egress_usd_per_hour=max(found.usd_per_hour - rent, 0.0),
        usd_per_1000=found.usd_per_hour / rate / 3.6,
        warnings=tuple(_warnings(scene, found, rows)),
    )


def _warnings(scene: Scene, found: Found, rows: tuple[Row, ...]) -> list[str]:
    lines: dict[str, None] = {}
    for row in rows:
        if row.source == "estimated":
            lines[
                f"{row.model} {row.stage} on {row.offer.accelerator}: estimated, ±{row.error:.0%}; run `disagctl profile`"
            ] = None
        elif row.error > WIDE:
            lines[
                f"{row.model} {row.stage} on {row.offer.accelerator}: {row.source} but carried over, ±{row.error:.0%}"
            ] = None
    if found.solution.status == "time_limit":
        lines[f"the solver was cut short: at most {found.solution.gap:.1%} cheaper plans may exist"] = None
    rate = scene.universe.request.workload.cv2
    if rate > 2:
        lines[f"arrivals are bursty (cv² {rate:.1f}): the p95 estimate is optimistic there"] = None
    return list(lines)
