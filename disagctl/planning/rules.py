"""stages.*.resources and replicas as the planner's rules."""

import re
from collections.abc import Iterator
from typing import Final

from disagctl.errors import SpecError
from disagctl.planning.files import Lines
from disagctl.spec.schema import Resources, Spec, StageWish
from disagctl.spec.suggest import did_you_mean
from planner.facts.names import canonical, known
from planner.plan import StageRule

_COUNTED = re.compile(r"\s*([^:]+?)\s*(?::\s*(\d+(?:\.0+)?))?\s*")
# SkyPilot's keys that choose machines but that no plan heeds yet: said, not swallowed.
_UNHEEDED: Final = (
    "infra", "cloud", "region", "zone", "instance_type", "cpus", "memory", "max_hourly_cost", "any_of", "ordered",
)  # fmt: skip


def stage_rules(
    spec: Spec, stages: dict[str, tuple[str, ...]], lines: Lines
) -> tuple[tuple[StageRule, ...], list[str]]:
    """(rules, warnings). ``stages``: each model's, by name. Raises SpecError for an accelerator that nobody knows."""
    rules: list[StageRule] = []
    warnings: list[str] = []
    for entry in spec.models:
        for stage in stages[entry.name]:
            key = next((name for name in (f"{entry.name}.{stage}", stage) if name in spec.stages), None)
            if key is not None:
                rules.append(_rule(entry.name, stage, spec.stages[key], lines.at("stages", key)))
    for key, wish in spec.stages.items():
        ignored = [name for name in _UNHEEDED if getattr(wish.resources, name) is not None]
        if ignored:
            warnings.append(f"stages.{key}.resources: {', '.join(ignored)} is not heeded by the plan")
    return tuple(rules), warnings


def _rule(model: str, stage: str, wish: StageWish, at: str) -> StageRule:
    resources = wish.resources
    counted = dict(_accelerators(resources, at))
    counts = [count for count in counted.values() if count is not None]
    return StageRule(
        model=model,
        stage=stage,
        accelerators=tuple(counted) or None,
        spot=resources.use_spot,
        replicas_min=wish.replicas.min if wish.replicas else 0,
        replicas_max=wish.replicas.max if wish.replicas else None,
        max_gpus=max(counts) if counts and len(counts) == len(counted) else None,
    )


def _accelerators(resources: Resources, at: str) -> Iterator[tuple[str, int | None]]:
    """``L4``, ``H100:8``, a list of those, or {H100: 8}."""
    wished = resources.accelerators
    if wished is None:
        return
    items = [wished] if isinstance(wished, str) else list(wished)
    for item in items:
        count = wished[item] if isinstance(wished, dict) else None
        match = _COUNTED.fullmatch(item)
        name = canonical(match[1]) if match else None
        if match is None or name is None:
            raise SpecError(
                f"{at}: unknown accelerator {item[:40]!r}", why=did_you_mean(item.partition(":")[0], known())
            )
        number = count if count is not None else (float(match[2]) if match[2] else None)
        if number is not None and (number < 1 or number != int(number)):
            raise SpecError(f"{at}: {number:g} GPUs of {name} will not do", why="it is a whole number, at least 1")
        yield name, int(number) if number is not None else None
