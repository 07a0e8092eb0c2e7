"""Why not this GPU for that stage? And what changes between two plans."""

from collections import defaultdict

import msgspec

from planner.domain import Offer
from planner.plan.engine import Scene, open_scene, search
from planner.plan.guess import prices
from planner.plan.options import Option
from planner.plan.request import PlanRequest
from planner.plan.result import Explanation, NodeChange, Plan, PlanDiff, ReplicaChange


def explain(request: PlanRequest, plan: Plan, stage: str, gpu: str, time_limit_s: float = 10.0) -> Explanation:
    """Why ``gpu`` was, or was not, chosen for ``stage`` (``model.stage`` or a bare name), by solving with it forced in."""
    model, _, name = stage.rpartition(".")
    rows = [row for row in plan.rows if name in row.stage.split("+") and model in {"", row.model}]
    mine = [row for row in rows if row.offer.accelerator == gpu]
    if mine:
        share = sum(r.rate_per_min for row in mine for r in row.routes) / max(
            sum(r.rate_per_min for row in rows for r in row.routes), 1e-12
        )
        lines = tuple(
            f"{row.replicas} × {row.stage} on {row.offer}, {row.seconds_per_request:.2f} s, ${row.usd_per_1000:.2f} per 1000"
            for row in mine
        )
        return Explanation(
            stage, gpu, True, f"{gpu} is in the plan: it serves {share:.0%} of the requests at {name}", lines
        )
    scene = open_scene(request, time_limit_s)
    models = [one for one in scene.universe.stages if model in {"", one} and name in scene.universe.stages[one]]
    if not models:
        return Explanation(stage, gpu, False, f"there is no stage {stage}: {_stages(scene)}")
    return _why_not(scene, plan, stage, models, name, gpu)


def _stages(scene: Scene) -> str:
    return ", ".join(f"{model}.{stage}" for model, stages in scene.universe.stages.items() for stage in stages)


def _why_not(scene: Scene, plan: Plan, stage: str, models: list[str], name: str, gpu: str) -> Explanation:
    request = scene.universe.request
    if not any(offer.accelerator == gpu for offer in request.offers):
        return Explanation(stage, gpu, False, f"no offer of {gpu} is left by the catalog, infra, spot and max_nodes")
    able = [o for o in scene.universe.options if o.gpu == gpu and name in o.stages and o.model in models]
    if not able:
        why = {
            text
            for (m, bundle, g), text in scene.universe.refused.items()
            if g == gpu and m in models and bundle == name
        }
        return Explanation(stage, gpu, False, f"{name} cannot run on {gpu}: {'; '.join(sorted(why)) or 'ruled out'}")
    facts = tuple(_facts(scene, able, plan, name))
    late = _too_slow(scene, able)
    if late:
        return Explanation(stage, gpu, False, late, facts)

    def forced(option: Option, _k: int) -> bool:
        return option.model not in models or name not in option.stages or option.gpu == gpu

    found = search(scene, forced, most=6)
    if found is None:
        return Explanation(stage, gpu, False, f"with {name} on {gpu} alone no plan meets the caps and the SLO", facts)
    more = found.usd_per_hour - plan.usd_per_hour
    share = more / max(plan.usd_per_hour, 0.01)  # own machines may cost nothing
    verdict = f"with {name} on {gpu} the plan would cost ${found.usd_per_hour:.2f}/h, {share:+.1%}"
    if more <= 0.005 * plan.usd_per_hour:
        verdict += ": a tie within the solver's gap"
    return Explanation(stage, gpu, False, verdict, facts, found.usd_per_hour)


def _too_slow(scene: Scene, able: list[Option]) -> str:
    """A sentence when every class it could serve would break its SLO on service alone."""
    classes = scene.universe.request.workload.classes
    lines = []
    for option in able:
        for k, found in option.served.items():
            limit = classes[k].p95_s
            if limit is None or found.seconds <= limit:
                return ""
            lines.append(f"{classes[k].shape} takes {found.seconds:.1f} s there, the p95 is {limit:g} s")
    return f"too slow: {lines[0]}" if lines else ""


def _facts(scene: Scene, able: list[Option], plan: Plan, name: str) -> list[str]:
    price = prices(scene.market)
    classes = scene.universe.request.workload.classes
    lines = []
    for option in able:
        usd = min(price.get(option.gpu, {"": 0.0}).values()) * option.gpus
        for k, found in list(option.served.items())[:3]:
            late = _late(found.seconds, classes[k].p95_s)
            lines.append(
                f"{option.bundle} on {option.gpus} × {option.gpu}: {classes[k].shape} in {found.seconds:.2f} s "
                f"(±{found.error:.0%}, {found.source}) at ${usd:.2f}/h "
                f"is ${found.seconds * usd / 3.6:.2f} per 1000; {found.peak_gib:.1f} GiB{late}"
            )
    lines.extend(
        f"the plan: {row.stage} on {row.offer}: {row.seconds_per_request:.2f} s, ${row.usd_per_1000:.2f} per 1000"
        for row in plan.rows
        if name in row.stage.split("+")
    )
    return lines


def _late(seconds: float, p95_s: float | None) -> str:
    """Cheap, and of no use: it takes longer than was promised."""
    return f"; too late for the p95 of {p95_s:g} s" if p95_s is not None and seconds > p95_s else ""


def diff(old: Plan, new: Plan) -> PlanDiff:
    """What changes from ``old`` to ``new``. Prices may differ: offers are matched on what they are."""
    nodes: dict[Offer, list[int]] = defaultdict(lambda: [0, 0])
    replicas: dict[tuple[str, str, str], list[int]] = defaultdict(lambda: [0, 0])
    for side, plan in enumerate((old, new)):
        for one in plan.nodes:
            plain = msgspec.structs.replace(one.offer, usd_per_hour=0.0, max_nodes=None, launch_s=0.0, where="")
            nodes[plain][side] += one.nodes
        for row in plan.rows:
            replicas[row.model, row.stage, row.offer.accelerator][side] += row.replicas
    return PlanDiff(
        tuple(NodeChange(offer, before, after) for offer, (before, after) in nodes.items() if before != after),
        tuple(ReplicaChange(*key, before, after) for key, (before, after) in replicas.items() if before != after),
        old.usd_per_hour,
        new.usd_per_hour,
    )
