"""``up --plan FILE``: start exactly what ``disagctl plan -o json`` said, or say why that will not do any more.

accept(path, spec, spec_path)     SavedPlan at today's prices (plan_file.py), for clouds and one's own nodes
follow(path, spec)                for ``infra: local``: the spec with the plan's replicas
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from msgspec.structs import replace

from disagctl.errors import InfeasibleError, OverBudgetError, UsageError
from disagctl.planning.catalogs import Catalog, canonical_cloud, load_catalog
from disagctl.planning.digest import changed
from disagctl.planning.files import Lines
from disagctl.planning.plan_file import SavedOffer, SavedPlan, read_plan
from disagctl.planning.profiles import PRECISIONS
from disagctl.planning.rules import capped
from disagctl.planning.widths import widths
from disagctl.spec import Spec
from disagctl.spec.infra import LOCAL
from disagctl.spec.units import Range
from planner.domain import Offer

RISE: Final = 0.05  # of the total, over what was previewed


def accept(path: Path, spec: Spec, spec_path: Path) -> SavedPlan:
    """The plan at today's prices, to be executed as it is.

    ``spec``: with what the command line says instead. Raises SpecError (3) for a broken file, UsageError (2) for a plan of
    another service or another wish, InfeasibleError (4) for offers that are gone, OverBudgetError (5) when the total rose by
    more than 5 % or is over the budget.
    """
    saved = read_plan(path)
    _same_wish(path, saved, spec)
    outside = sorted({str(one.offer) for one in saved.nodes if not _inside(one.offer, spec.infra)})
    if outside:
        raise UsageError(
            f"{path} rents {outside[0]}", why=f"the spec's infra is {', '.join(spec.infra)}",
            next="plan it again, or give the same --infra",
        )  # fmt: skip
    catalog = load_catalog(spec.catalog, spec.infra)
    offers, _, _ = capped(spec, catalog.offers, Lines(spec_path))
    priced = _priced(saved, offers, catalog)
    _affordable(path, saved, priced, spec.budget.max_usd_per_hour)
    return priced


def follow(path: Path, spec: Spec) -> None:
    """For this machine: set the spec's replicas, precisions and GPUs a worker to the plan's. Raises as ``accept`` does, and
    InfeasibleError for what this version cannot start."""
    saved = read_plan(path)
    elsewhere = sorted({row.offer.cloud for row in saved.rows} - {LOCAL})
    if saved.name == spec.name and elsewhere:
        raise UsageError(
            f"{path} is a plan for {', '.join(elsewhere)}", why="the spec says infra: local", next="plan it again"
        )
    _same_wish(path, saved, spec)
    counts: dict[tuple[str, str], int] = {}
    formats: dict[tuple[str, str], str] = {}
    for row in saved.rows:
        if "+" in row.stage:
            raise InfeasibleError(
                f"{path}: {row.stage} is a bundle", why="on this machine every stage is a worker of its own",
                next="set bundles: false and plan it again", code="bundle_unsupported",
            )  # fmt: skip
        counts[row.model, row.stage] = counts.get((row.model, row.stage), 0) + row.replicas
        formats[row.model, row.stage] = row.precision
    own, gpus = {entry.name: PRECISIONS[entry.dtype] for entry in spec.models}, widths(saved.rows)
    for (model, stage), count in counts.items():
        said = spec.wish(model, stage)
        wish = said.settled(formats[model, stage], own[model]).on(gpus.get((model, stage), said.gpus))
        most = max(count, spec.replicas(model, stage)[1])
        spec.stages[f"{model}.{stage}"] = replace(wish, replicas=Range(count, most))


def _same_wish(path: Path, saved: SavedPlan, spec: Spec) -> None:
    if saved.name != spec.name:
        raise UsageError(
            f"{path} is a plan of {saved.name!r}", why=f"the spec is of {spec.name!r}", next="plan it again"
        )
    strangers = sorted({row.model for row in saved.rows} ^ {entry.name for entry in spec.models})
    if strangers:
        raise UsageError(
            f"{path} does not fit the spec", why=f"only one of them has {strangers[0]}", next="plan it again"
        )
    other = changed(saved.spec or {}, spec)
    if other:
        raise UsageError(
            f"{path} was made for another {' and '.join(other)}", why="the spec has changed since", next="plan it again",
            code="plan_stale",
        )  # fmt: skip


def _inside(offer: SavedOffer, infra: Iterable[str]) -> bool:
    for written in infra:
        cloud, _, rest = written.partition("/")
        if canonical_cloud(cloud) == offer.cloud and rest.partition("/")[0] in {"", offer.region}:
            return True
    return False


def _priced(saved: SavedPlan, offers: Iterable[Offer], catalog: Catalog) -> SavedPlan:
    """With today's prices. Raises InfeasibleError for an offer that is gone, or has fewer nodes now."""
    today = {(o.cloud, o.region, o.instance_type, o.accelerator, o.count, o.spot): o for o in offers}
    for one in saved.nodes:
        found = today.get(one.offer.sku)
        if found is None or (found.max_nodes is not None and found.max_nodes < one.nodes):
            few = f"has {found.max_nodes} nodes, the plan wants {one.nodes}" if found is not None else ""
            what = few or "is not offered any more"
            raise InfeasibleError(
                f"{one.offer} {what}", why=f"prices: {catalog.label}", next="plan it again", code="offer_gone",
            )  # fmt: skip

    def live(offer: SavedOffer) -> SavedOffer:
        return replace(offer, usd_per_hour=today[offer.sku].usd_per_hour, launch_s=today[offer.sku].launch_s)

    nodes = [replace(one, offer=live(one.offer)) for one in saved.nodes]
    rows = [replace(row, offer=live(row.offer)) for row in saved.rows]
    priced = replace(saved, rows=rows, nodes=nodes)
    return replace(priced, usd_per_hour=priced.rent + saved.egress_usd_per_hour)


def _affordable(path: Path, saved: SavedPlan, live: SavedPlan, budget: float | None) -> None:
    if live.usd_per_hour > saved.usd_per_hour * (1 + RISE) + 1e-6:
        raise OverBudgetError(
            f"{path} costs ${live.usd_per_hour:.2f}/h now",
            why=f"it said ${saved.usd_per_hour:.2f}/h, and prices rose by more than {RISE:.0%}",
            next="plan it again", code="price_rose",
        )  # fmt: skip
    if budget is not None and live.usd_per_hour > budget:
        raise OverBudgetError(
            f"{path} costs ${live.usd_per_hour:.2f}/h", why=f"the budget is ${budget:.2f}/h",
            next="plan it again, or raise the budget",
        )  # fmt: skip
