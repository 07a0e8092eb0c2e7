"""A spec and what it names, as one request to the planner, with what a reader has to know of where it all came from."""

from collections.abc import Iterable
from pathlib import Path
from typing import Final

import msgspec

from disagctl.errors import InfeasibleError, SpecError
from disagctl.planning import shipped
from disagctl.planning.catalogs import SHIPPED, SKY, UNPRICED, Catalog, canonical_cloud, load_catalog
from disagctl.planning.demand import Repos, demand
from disagctl.planning.egress import egress
from disagctl.planning.files import Lines
from disagctl.planning.plan_file import SavedPlan
from disagctl.planning.profiles import (
    PRECISIONS,
    STAGES,
    declared,
    missing,
    published,
    read_profiles,
    rows_of,
    unmatched,
    with_memory,
)
from disagctl.planning.repos import find_repo
from disagctl.planning.rules import capped, stage_rules, unheeded, wishes_of
from disagctl.spec import ModelEntry, Spec
from disagctl.spec.schema import SYNTHETIC
from planner.domain import Defect, ModelFacts, Offer, Profile, Shape, Workload
from planner.facts import parse_gpus
from planner.facts.flops import Unknown, facts_from_configs
from planner.plan import ModelSpec, PlanRequest
from planner.plan.market import in_infra
from stages.models.cards import is_split

LEFT_OUT_SHOWN: Final = 3


class Inputs(msgspec.Struct):
    """What the planner is asked, and what it rests on. ``unknown``: models that nothing can be estimated for, and why.

    ``before``: the plan that runs already.
    """

    spec: Spec
    request: PlanRequest
    catalog: Catalog
    warnings: list[str]
    unknown: dict[str, str]
    before: SavedPlan | None = None


def gather(spec: Spec, path: Path, *, profiles: str | None = None, before: SavedPlan | None = None) -> Inputs:
    """Read everything. ``before``: the plan that runs already.

    Raises SpecError with file:line for what is wrong in a file, InfeasibleError when nothing is known or offered.
    """
    lines = Lines(path)
    gpus = parse_gpus(shipped.text(shipped.GPUS), shipped.GPUS)
    own, defects = read_profiles(profiles or spec.profiles, gpus)
    timed = rows_of(spec, own, published(gpus))
    strangers = unmatched(spec, own)
    repos = {entry.name: find_repo(spec, entry, missing(entry, timed[entry.name]), strangers) for entry in spec.models}
    workload = demand(spec, repos, lines)
    timed |= {name: rows for name, rows in declared(spec, workload, gpus).items() if not timed[name]}
    facts, unknown = _facts(spec.models, repos, workload, timed, strangers)
    rows = with_memory((row for rows in timed.values() for row in rows), facts, gpus)
    prices = load_catalog(spec.catalog, spec.infra)
    _check_clouds(spec, prices, lines)
    stages = {entry.name: _stages(entry, facts, timed[entry.name]) for entry in spec.models}
    roles = [(name, stage) for name, parts in stages.items() for stage in parts]
    offers, quotas, beside = capped(spec, _within(spec, prices), lines)
    rules, offers = stage_rules(wishes_of(spec, stages, lines), offers, prices, roles)
    leaving, unsaid = egress(spec, offers, lines)
    request = PlanRequest(
        workload=workload,
        offers=offers,
        gpus=tuple(gpus),
        models=tuple(ModelSpec(e.name, stages[e.name], (PRECISIONS[e.dtype],)) for e in spec.models),
        profiles=tuple(rows),
        facts=tuple(facts),
        max_usd_per_hour=spec.budget.max_usd_per_hour,
        infra=tuple(_place(place) for place in spec.infra),
        rules=rules,
        quotas=quotas,
        bundles=spec.bundles,
        cross_cloud=spec.placement.cross_cloud,
        egress=leaving,
        spot_share=spec.placement.max_spot_share,
        pool_share=spec.placement.max_pool_share,
        running=before.running() if before is not None else (),
    )
    said = [f"{defect.where}: {defect.message}" for defect in defects if not defect.fatal]
    warnings = [
        *([strangers] if strangers else []),
        *unheeded(spec),
        *beside,
        *unsaid,
        *own_machines(offers),
        *_gaps(spec),
        *left_out(prices.defects, [name for name in spec.catalog if name not in (SHIPPED, SKY)]),
        *said,
    ]
    return Inputs(spec, request, prices, warnings, unknown, before)


def _within(spec: Spec, prices: Catalog) -> list[Offer]:
    """The offers of the spec's infra."""
    infra = tuple(_place(place) for place in spec.infra)
    return [offer for offer in prices.offers if in_infra(offer, infra)]


def _gaps(spec: Spec) -> list[str]:
    """What the shipped prices are known to lack, where the spec asks for it."""
    if SHIPPED not in (spec.catalog or [SHIPPED]):
        return []
    asked = {_place(place).partition("/")[0] for place in spec.infra}
    return [f"{why}; --catalog sky has them" for cloud, why in shipped.GAPS.items() if cloud in asked]


def own_machines(offers: Iterable[Offer]) -> list[str]:
    """A warning for machines of the user's whose number nobody said."""
    unbounded = sorted(
        {f"{o.cloud}/{o.region} {o.instance_type}" for o in offers if o.cloud in UNPRICED and o.max_nodes is None}
    )
    more = f" and {len(unbounded) - 3} more" if len(unbounded) > 3 else ""
    names = ", ".join(unbounded[:3])
    return (
        [f"{names}{more}: as many nodes as needed are taken to be there; say how many (max_nodes)"] if unbounded else []
    )


def _facts(
    models: Iterable[ModelEntry], repos: Repos, workload: Workload, timed: dict[str, list[Profile]], strangers: str
) -> tuple[list[ModelFacts], dict[str, str]]:
    found: list[ModelFacts] = []
    unknown: dict[str, str] = {}
    for entry in models:
        repo = repos[entry.name]
        if entry.id == SYNTHETIC:
            continue
        if repo is None:
            unknown[entry.name] = "its configs are not here"
            continue
        shapes: dict[Shape, None] = {c.shape: None for c in workload.classes if c.model == entry.name}
        shapes |= {row.shape: None for row in timed[entry.name]}
        made = facts_from_configs(
            repo.index, repo.components, shapes, entry.name, repo.origin, split=is_split(entry.options)
        )
        if isinstance(made, Unknown):
            unknown[entry.name] = made.reason
        else:
            found.append(made)
    if not found and not any(timed.values()):
        name, why = next(iter(unknown.items()))
        raise InfeasibleError(
            f"nothing is known of {name}", why=f"{strangers or 'nothing was profiled'}, and {why}",
            next=f"profile first: disagctl profile {name} -f profiles.csv", code="profile_first",
        )  # fmt: skip
    return found, unknown


def _stages(entry: ModelEntry, facts: Iterable[ModelFacts], rows: Iterable[Profile]) -> tuple[str, ...]:
    """In the order in which they run: the config's, or the rows' with the usual order first."""
    for fact in facts:
        if fact.model == entry.name:
            return tuple(stage.stage for stage in fact.stages)
    if entry.id == SYNTHETIC and entry.stages:
        return tuple(entry.stages)
    named = dict.fromkeys(stage for row in rows for stage in row.stage.split("+"))
    return tuple(sorted(named, key=lambda stage: STAGES.index(stage) if stage in STAGES else len(STAGES)))


def _check_clouds(spec: Spec, prices: Catalog, lines: Lines) -> None:
    """A place without a single offer: say so by name, rather than that the whole is infeasible."""
    clouds = {offer.cloud for offer in prices.offers}
    for index, place in enumerate(spec.infra):
        cloud = canonical_cloud(place.partition("/")[0])
        if cloud in clouds:
            continue
        if cloud in UNPRICED:
            raise SpecError(
                f"{lines.at('infra', index)}: {prices.label} has no offers of {cloud}",
                why="what your own machines cost, and how many there are, only you know",
                next=f"catalog: [mine.csv, shipped], with rows such as {cloud},here,node,H100,8,20.0,,4 in mine.csv",
                code="no_offers",
            )  # fmt: skip
        if not any(canonical_cloud(place.partition("/")[0]) in clouds for place in spec.infra):
            raise InfeasibleError(
                f"{prices.label} has no offers of {', '.join(spec.infra)}", why=f"it has {', '.join(sorted(clouds))}",
                next="name another catalog with --catalog, or another infra", code="no_offers",
            )  # fmt: skip


def _place(place: str) -> str:
    """Cloud and region; a zone is beyond what catalogs tell apart."""
    cloud, *rest = place.split("/")
    return "/".join([canonical_cloud(cloud), *rest[:1]])


def left_out(defects: Iterable[Defect], files: Iterable[str]) -> list[str]:
    """What of the user's own price lists is not planned with: of somebody else's, nobody expects to hear every row."""
    own = set(files)
    found = [one for one in defects if one.where.rpartition(":")[0] in own and one.message.endswith(" left out")]
    said = [f"{one.where}: {one.message}" for one in found[:LEFT_OUT_SHOWN]]
    more = len(found) - LEFT_OUT_SHOWN
    return [*said, f"{more} more rows of the catalog are left out, in part or whole"] if more > 0 else said


def doubts(defects: Iterable[Defect], used: Iterable[Offer]) -> list[str]:
    """What was doubtful about the rows that a plan stands on; of a row's two prices, about the one that is used."""
    names: dict[str, set[str]] = {}
    for offer in used:
        names.setdefault(offer.where, set()).add(str(offer))
    return [
        f"{defect.where}: {defect.message}"
        for defect in defects
        if defect.where in names
        and (": $" not in defect.message or defect.message.partition(": $")[0] in names[defect.where])
    ]
