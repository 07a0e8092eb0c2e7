"""stages.* and quotas as the planner's rules, and which stage may use which offer."""

from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from disagctl.errors import InfeasibleError, SpecError
from disagctl.planning.catalogs import Catalog, canonical_cloud
from disagctl.planning.files import Lines
from disagctl.planning.wants import Want, wants_of
from disagctl.spec.schema import Quota as WishedQuota
from disagctl.spec.schema import Spec, StageWish
from disagctl.spec.suggest import did_you_mean
from planner.domain import Offer
from planner.facts.names import canonical, known
from planner.plan import Quota, StageRule
from planner.precision import AUTO
from stages.models.cards import SPREADABLE

# SkyPilot's keys that choose a machine in ways that no price list tells of.
_UNHEEDED: Final = {
    "zone": "prices are those of a region",
    "accelerator_args": "it is for TPUs, which are not planned for",
    "job_recovery": "the head brings work back by itself",
}
Role = tuple[str, str]  # model, stage


class Wish(msgspec.Struct, frozen=True):
    """What the spec says of one role. ``key``: under which name it stands in ``stages``; ``wants``: any of these will do."""

    key: str
    stage: StageWish
    wants: tuple[Want, ...]

    @property
    def particular(self) -> bool:
        """Whether it asks for more than names of GPUs and spot or not."""
        return len(self.wants) > 1 or not self.wants[0].plain


def wishes_of(spec: Spec, stages: Mapping[str, tuple[str, ...]], lines: Lines) -> dict[Role, Wish]:
    """By role, where the spec says something. Raises SpecError with file:line for resources that mean nothing."""
    found: dict[Role, Wish] = {}
    for entry in spec.models:
        for stage in stages[entry.name]:
            key = next((name for name in (f"{entry.name}.{stage}", stage) if name in spec.stages), None)
            if key is not None:
                wish = spec.stages[key]
                try:
                    found[entry.name, stage] = Wish(key, wish, wants_of(wish.resources))
                except ValueError as err:
                    raise SpecError(f"{lines.at('stages', key, 'resources')}: {err}") from err
    return found


def unheeded(spec: Spec) -> list[str]:
    """Warnings about keys that the plan cannot follow."""
    said = []
    for key, wish in spec.stages.items():
        for name, why in _UNHEEDED.items():
            if getattr(wish.resources, name) is not None:
                said.append(f"stages.{key}.resources.{name} is not looked at by the plan: {why}")
        if wish.resources.ordered is not None:
            said.append(f"stages.{key}.resources.ordered: the plan takes the cheapest of them, whatever their order")
    return said


def stage_rules(
    wishes: Mapping[Role, Wish], offers: Iterable[Offer], catalog: Catalog, roles: Iterable[Role]
) -> tuple[tuple[StageRule, ...], tuple[Offer, ...]]:
    """(rules, offers). Offers that the same roles may use are of one kind; offers that nobody may use are left out.

    Raises InfeasibleError when a role's resources leave it no offer at all.
    """
    everyone, picky = frozenset(roles), {role: wish for role, wish in wishes.items() if wish.particular}
    kinds: dict[frozenset[Role], str] = {frozenset(): ""}  # by the roles that may not use them
    kept: list[Offer] = []
    able: set[Role] = set()
    offers = list(offers)
    for offer in offers if picky else ():
        facts = catalog.of(offer)
        barred = frozenset(
            role for role, wish in picky.items() if not any(want.admits(offer, facts) for want in wish.wants)
        )
        if barred != everyone:
            able |= everyone - barred
            kept.append(msgspec.structs.replace(offer, kind=kinds.setdefault(barred, f"kind {len(kinds)}")))
    for role, wish in picky.items():
        if offers and role not in able:
            raise InfeasibleError(
                f"no offer is left for {'.'.join(role)}", why=f"none passes stages.{wish.key}.resources",
                next="ask for less there, or name another catalog", code="no_offers",
            )  # fmt: skip
    rules = []
    for role, wish in wishes.items():
        open_to = tuple(kind for barred, kind in kinds.items() if role not in barred)
        rules.append(_rule(role, wish, open_to if role in picky else None))
    return tuple(rules), tuple(kept if picky else offers)


def _rule(role: Role, wish: Wish, kinds: tuple[str, ...] | None) -> StageRule:
    cards = [want.accelerators for want in wish.wants]
    spots = {want.spot for want in wish.wants}
    counts = [count for some in cards for _, count in some or ((None, None),)]
    replicas = wish.stage.replicas
    return StageRule(
        model=role[0],
        stage=role[1],
        accelerators=None if None in cards else tuple(dict.fromkeys(name for some in cards for name, _ in some or ())),
        spot=spots.pop() if len(spots) == 1 else None,
        replicas_min=replicas.min if replicas else 0,
        replicas_max=replicas.max if replicas else None,
        max_gpus=max(count for count in counts if count) if all(counts) else None,
        kinds=kinds,
        precisions=None if wish.stage.precisions == (AUTO,) else wish.stage.precisions,
        gpus=wish.stage.gpus_per_replica,
    )


def startable(rules: Iterable[StageRule], roles: Iterable[Role]) -> tuple[StageRule, ...]:
    """The rules, and that only the stage that workers can spread over several GPUs has any."""
    known = {(rule.model, rule.stage): rule for rule in rules}
    every = [known.get(role) or StageRule(*role) for role in roles]
    return tuple(rule if rule.stage == SPREADABLE else msgspec.structs.replace(rule, max_gpus=1) for rule in every)


def capped(spec: Spec, offers: Iterable[Offer], lines: Lines) -> tuple[tuple[Offer, ...], tuple[Quota, ...], list[str]]:
    """(offers under the spec's ``max_nodes``, quotas in GPUs, warnings). Raises SpecError for a quota that means nothing."""
    kept, quotas, said = list(offers), [], []
    for index, wished in enumerate(spec.quotas):
        at = lines.at("quotas", index)
        quota = _quota(wished, at)
        hit = [place for place, offer in enumerate(kept) if _counts(wished, quota, offer)]
        if not hit:
            said.append(f"{at}: the quota is of no offer")
        if wished.max_nodes is None:
            quotas.append(quota)
        for place in hit if wished.max_nodes is not None else ():
            kept[place] = msgspec.structs.replace(kept[place], max_nodes=wished.max_nodes)
    return tuple(kept), tuple(quotas), said


def _quota(wished: WishedQuota, at: str) -> Quota:
    if (wished.max_gpus is None) == (wished.max_nodes is None):
        raise SpecError(f"{at}: a quota has either max_gpus or max_nodes", next="{accelerator: H100, max_gpus: 16}")
    if wished.max_gpus is not None and wished.instance_type is not None:
        raise SpecError(f"{at}: instance_type goes with max_nodes", why="max_gpus counts the GPUs of all that match")
    name = canonical(wished.accelerator) if wished.accelerator is not None else None
    if wished.accelerator is not None and name is None:
        raise SpecError(
            f"{at}: unknown accelerator {wished.accelerator[:40]!r}", why=did_you_mean(wished.accelerator, known())
        )
    cloud = canonical_cloud(wished.cloud) if wished.cloud is not None else None
    return Quota(wished.max_gpus or 0, cloud, wished.region, name, wished.spot)


def _counts(wished: WishedQuota, quota: Quota, offer: Offer) -> bool:
    return (
        quota.cloud in {None, offer.cloud}
        and quota.region in {None, offer.region}
        and quota.accelerator in {None, offer.accelerator}
        and quota.spot in {None, offer.spot}
        and wished.instance_type in {None, offer.instance_type}
    )
