"""Why there is no plan: the constraint that binds, and the smallest relaxation that would do, one tried at a time."""

import math
from collections.abc import Iterator

import msgspec

from planner.domain import Offer, Workload
from planner.plan.engine import Found, Scene, open_scene, search
from planner.plan.lay import lay_out
from planner.plan.level import partitions
from planner.plan.market import matches, usable_offers
from planner.plan.request import PlanRequest
from planner.plan.result import Infeasible

EXTRA_PRICE = 100.0  # price factor of nodes beyond a cap, so that as few as possible are asked for
SHARED = ("quota", "spot_share", "pool_share")  # what these would have to be, the plan without them says
SLOWER = (1.1, 1.25, 1.5, 2.0, 3.0, 5.0)
FEWER = (0.9, 0.75, 0.5, 0.25, 0.1)


def no_way(scene: Scene) -> Infeasible | None:
    """What can be told without solving: nothing offered, nothing known, nothing fits, nothing quick enough."""
    request = scene.universe.request
    if not request.offers:
        return Infeasible(
            "infeasible", "infra", "no offer is left by infra, spot and max_nodes", "allow more clouds, or spot"
        )
    for k, item in enumerate(request.workload.classes):
        stages = scene.universe.stages[item.model]
        if not stages:
            return Infeasible(
                "no_profile",
                "profile",
                f"{item.model}: no profile names its stages — profile first",
                "disagctl profile",
            )
        if k not in scene.quick:
            return _uncovered(scene, k)
        if item.p95_s is not None and scene.quick[k] > item.p95_s:
            return Infeasible(
                "infeasible",
                "slo",
                f"{item.model} {item.shape}: the quickest way takes {scene.quick[k]:.1f} s of service alone, "
                f"the p95 is {item.p95_s:g} s",
                f"slo.p95 of {math.ceil(scene.quick[k] * 1.1)}s or more",
            )
    return None


def _uncovered(scene: Scene, k: int) -> Infeasible:
    """A class that no GPU can serve at some stage: memory, missing profiles, or rules."""
    request, item = scene.universe.request, scene.universe.request.workload.classes[k]
    stages = scene.universe.stages[item.model]
    able = {option.stages for option in scene.universe.options if k in option.served}
    missing = next((s for s in stages if not any(s in bundle for bundle in able)), None)
    if missing is None:
        parts = list(partitions(stages, scene.universe.bundles[item.model]))
        return Infeasible(
            "infeasible",
            "bundles",
            f"{item.model} {item.shape}: no complete way in {len(parts)} layouts",
            "bundles: true",
        )
    reasons = {
        gpu: why
        for (model, bundle, gpu), why in scene.universe.refused.items()
        if model == item.model and bundle == missing
    }
    needs: list[tuple[float, str]] = []
    for gpu in sorted({offer.accelerator for offer in request.offers}):
        found = scene.book.predict(item.model, missing, gpu, item.shape)
        card = scene.book.gpus.get(gpu)
        if found is not None and card is not None and found.peak_gib > card.usable_gib:
            needs.append((found.peak_gib, gpu))
    label = f"{item.model} {item.shape}: {missing}"
    if needs:
        least, gpu = min(needs)
        return Infeasible(
            "infeasible",
            "memory",
            f"{label} needs {least:.1f} GiB at least and fits no offered GPU (tried {', '.join(gpu for _, gpu in needs)})",
            f"offer a GPU with {least:.0f} GiB usable, or quantised weights",
        )
    if any("allows" in why or "spot" in why for why in reasons.values()):
        return Infeasible(
            "infeasible",
            "accelerators",
            f"{label}: no offered GPU is among those that the specification allows",
            "allow more",
        )
    wide = next((r.gpus for r in request.rules if (r.model, r.stage) == (item.model, missing) and r.gpus), 1)
    if wide > 1:
        return _too_wide(request, label, wide)
    return Infeasible(
        "no_profile", "profile", f"{label}: no profile on any offered GPU, and nothing to estimate from — profile first"
    )


def _too_wide(request: PlanRequest, label: str, gpus: int) -> Infeasible:
    """So many GPUs a replica are not to be had, or nobody has timed it on so many."""
    if all(offer.count < gpus for offer in request.offers):
        why = f"{label} is to have {gpus} GPUs of a node, and no offer has so many"
        return Infeasible("infeasible", "gpus_per_replica", why, "lower gpus_per_replica, or offer larger nodes")
    why = f"{label}: no profile has it on {gpus} GPUs a replica, and that is not estimated"
    return Infeasible(
        "no_profile", "profile", why, f"add rows with gpus={gpus} to the profiles, or lift gpus_per_replica"
    )


def over_budget(request: PlanRequest, usd: float) -> Infeasible:
    """Feasible but for the money."""
    limit = request.max_usd_per_hour or 0.0
    return Infeasible(
        "over_budget",
        "budget",
        f"the cheapest plan costs ${usd:.2f}/h, the budget is ${limit:.2f}/h",
        f"max_usd_per_hour: {math.ceil(usd * 100) / 100:.2f}",
        usd,
    )


def binding(request: PlanRequest, limit_s: float) -> Infeasible:
    """Relax one constraint at a time until there is a plan."""
    for constraint, why, relaxation, relaxed in _relaxations(request):
        found = _try(relaxed, limit_s)
        if found is not None:
            if constraint == "max_nodes":
                relaxation = _extra(found)
            elif constraint in SHARED:
                relaxation = enough(constraint, request, found)
            return Infeasible("infeasible", constraint, why, relaxation)
    return Infeasible(
        "infeasible", "several", "no plan meets all constraints, and dropping any one of them is not enough"
    )


def _try(request: PlanRequest, limit_s: float) -> Found | None:
    scene = open_scene(msgspec.structs.replace(request, gap=0.05), limit_s)
    return None if no_way(scene) else search(scene, most=4)


def _relaxations(request: PlanRequest) -> Iterator[tuple[str, str, str, PlanRequest]]:
    """(constraint, why, relaxation, the request without it), the likeliest first."""
    change = msgspec.structs.replace
    offers = usable_offers(request)
    if any(offer.max_nodes is not None for offer in offers):
        extra = [
            change(o, max_nodes=None, usd_per_hour=max(o.usd_per_hour, 0.01) * EXTRA_PRICE, where="beyond max_nodes")
            for o in offers
        ]
        relaxed = change(request, offers=tuple(offers) + tuple(extra))
        yield "max_nodes", "the offers' max_nodes leave too few GPUs for this load", "", relaxed
    if request.quotas:
        yield "quota", "the quotas leave too few GPUs for this load", "", change(request, quotas=())
    if request.spot_share is not None:
        relaxed = change(request, spot_share=None)
        yield (
            "spot_share",
            f"spot may be {request.spot_share:.0%} of the GPUs, and on-demand offers do not make up the rest",
            "",
            relaxed,
        )
    if request.pool_share is not None:
        relaxed = change(request, pool_share=None)
        yield (
            "pool_share",
            f"one spot pool may take {request.pool_share:.0%} of the spend, and there are too few others",
            "",
            relaxed,
        )
    yield from _rules(request)
    if not request.cross_cloud:
        yield (
            "cross_cloud",
            "no single cloud has what all stages need",
            "placement.cross_cloud: true",
            change(request, cross_cloud=True),
        )
    for factor in SLOWER:
        classes = tuple(change(c, p95_s=c.p95_s * factor if c.p95_s else None) for c in request.workload.classes)
        slower = change(request, workload=Workload(classes, request.workload.cv2))
        worst = min((c.p95_s for c in classes if c.p95_s), default=None)
        if worst is not None:
            yield "slo", "no plan within the caps keeps the p95", f"slo.p95 of {worst:g}s", slower
    for factor in FEWER:
        classes = tuple(change(c, rate_per_s=c.rate_per_s * factor) for c in request.workload.classes)
        yield (
            "rate",
            "the offers do not carry this rate",
            f"{factor:.0%} of the rate",
            change(request, workload=Workload(classes, request.workload.cv2)),
        )


def _rules(request: PlanRequest) -> Iterator[tuple[str, str, str, PlanRequest]]:
    """Each restriction of each stage, lifted."""
    change = msgspec.structs.replace
    for field, constraint in (
        ("replicas_max", "replicas"), ("accelerators", "accelerators"), ("spot", "spot"), ("gpus", "gpus_per_replica"),
    ):  # fmt: skip
        for at, rule in enumerate(request.rules):
            if getattr(rule, field) is not None:
                rules = (*request.rules[:at], change(rule, **{field: None}), *request.rules[at + 1 :])
                name = constraint if field == "gpus" else field
                why = f"{rule.model} {rule.stage}: {name} {getattr(rule, field)} does not carry the load"
                yield constraint, why, f"lift {name} of stage {rule.stage}", change(request, rules=rules)


def enough(constraint: str, request: PlanRequest, found: Found) -> str:
    """The limits that a plan found without them would keep."""
    rented = [
        (tier, round(found.solution.values[column]))
        for tier, column in zip(found.model.market.tiers, found.model.rent, strict=True)
        if round(found.solution.values[column])
    ]
    if constraint == "quota":
        short = []
        for quota in request.quotas:
            taken = sum(tier.count * nodes for tier, nodes in rented if matches(quota, tier.offers[0]))
            if taken > quota.max_gpus:
                of = " ".join(name for name in (quota.cloud, quota.region, quota.accelerator) if name)
                short.append(f"max_gpus of {taken} instead of {quota.max_gpus}{f' for {of}' if of else ''}")
        return "; ".join(short)
    if constraint == "spot_share":
        rows, _ = lay_out(found.model, found.solution.values)
        gpus = sum(row.replicas * row.gpus_per_replica for row in rows)
        share = sum(row.replicas * row.gpus_per_replica for row in rows if row.offer.spot) / max(gpus, 1)
        return f"max_spot_share of {math.ceil(share * 100) / 100:g}"
    spend: dict[tuple[str, str, str], float] = {}
    for tier, nodes in rented:
        if tier.spot:
            offer = tier.offers[0]
            pool = (offer.cloud, offer.region, offer.accelerator)
            spend[pool] = spend.get(pool, 0.0) + tier.usd_per_hour * nodes
    total = sum(tier.usd_per_hour * nodes for tier, nodes in rented)
    return f"max_pool_share of {math.ceil(max(spend.values(), default=0.0) / max(total, 1e-9) * 100) / 100:g}"


def _extra(found: Found) -> str:
    """How many nodes beyond their caps the relaxed plan took."""
    lines = []
    for tier, column in zip(found.model.market.tiers, found.model.rent, strict=True):
        taken = round(found.solution.values[column])
        if taken and tier.offers[0].where == "beyond max_nodes":
            offer: Offer = tier.offers[0]
            lines.append(f"{taken} more of {offer}")
    return "; ".join(lines) or "raise max_nodes"
