"""``up --plan FILE``: start exactly what ``disagctl plan -o json`` said."""

from pathlib import Path
from typing import Any, Final

import msgspec

from disagctl.errors import InfeasibleError, SpecError, UsageError
from disagctl.planning.document import SCHEMA_VERSION
from disagctl.spec import Spec
from disagctl.spec.infra import LOCAL
from disagctl.spec.schema import StageWish
from disagctl.spec.units import Range
from planner.plan import Plan

MAX_BYTES: Final = 16 << 20


class SavedRow(msgspec.Struct):
    """What is needed of a row."""

    model: str
    stage: str
    offer: dict[str, Any]
    replicas: int


class SavedPlan(msgspec.Struct):
    """What is needed of a plan."""

    schema_version: int
    name: str
    feasible: bool
    rows: list[SavedRow] = []


def follow(path: Path, spec: Spec) -> None:
    """Set the spec's replicas to the plan's. Raises SpecError for a file that is no plan of this service, InfeasibleError
    for one that this version cannot start."""
    saved = _read(path, spec)
    elsewhere = sorted({str(row.offer.get("cloud")) for row in saved.rows} - {LOCAL})
    if elsewhere:
        raise UsageError(
            f"{path} is a plan for {', '.join(elsewhere)}", why="the spec says infra: local", next="plan it again"
        )
    counts: dict[tuple[str, str], int] = {}
    for row in saved.rows:
        if "+" in row.stage:
            raise InfeasibleError(
                f"{path}: {row.stage} is a bundle", why="on this machine every stage is a worker of its own",
                next="set bundles: false and plan it again", code="bundle_unsupported",
            )  # fmt: skip
        counts[row.model, row.stage] = counts.get((row.model, row.stage), 0) + row.replicas
    names = {entry.name for entry in spec.models}
    for (model, stage), count in counts.items():
        if model not in names or count < 1:
            raise UsageError(f"{path} does not fit the spec", why=f"{model}.{stage}: {count}", next="plan it again")
        wish = spec.wish(model, stage)
        most = max(count, spec.replicas(model, stage)[1])
        spec.stages[f"{model}.{stage}"] = StageWish(wish.resources, Range(count, most))


def read_plan(path: Path, spec: Spec) -> Plan:
    """The whole plan, to be rented as it is. Raises SpecError, UsageError, InfeasibleError as ``follow`` does."""
    _read(path, spec)
    try:
        return msgspec.convert({**msgspec.json.decode(path.read_bytes()), "type": "plan"}, Plan)
    except (msgspec.ValidationError, OSError) as err:
        raise SpecError(
            f"{path}:1: the plan is not whole", why=str(err), next="plan it again", code="plan_invalid"
        ) from err


def _read(path: Path, spec: Spec) -> SavedPlan:
    """A feasible plan of the spec's service."""
    saved = _decode(path)
    if saved.name != spec.name:
        raise UsageError(
            f"{path} is a plan of {saved.name!r}", why=f"the spec is of {spec.name!r}", next="plan it again"
        )
    if not saved.feasible or not saved.rows:
        raise InfeasibleError(f"{path} says that there is no plan", next="change the spec and plan it again")
    return saved


def _decode(path: Path) -> SavedPlan:
    next_step = "disagctl plan SPEC -o json > FILE writes one"
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as err:
        raise SpecError(f"{path}:1: cannot read the plan", why=str(err), next=next_step, code="plan_invalid") from err
    try:
        saved = msgspec.json.decode(data, type=SavedPlan)
    except msgspec.DecodeError as err:
        raise SpecError(f"{path}:1: this is not a plan", why=str(err), next=next_step, code="plan_invalid") from err
    if saved.schema_version != SCHEMA_VERSION:
        raise SpecError(
            f"{path}:1: a plan of another version", why=f"{saved.schema_version}", next=next_step, code="plan_invalid"
        )
    return saved
