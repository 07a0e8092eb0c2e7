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
    saved = _read(path)
    if saved.name != spec.name:
        raise UsageError(
            f"{path} is a plan of {saved.name!r}", why=f"the spec is of {spec.name!r}", next="plan it again"
        )
    if not saved.feasible or not saved.rows:
        raise InfeasibleError(f"{path} says that there is no plan", next="change the spec and plan it again")
    elsewhere = sorted({str(row.offer.get("cloud")) for row in saved.rows} - {LOCAL})
    if elsewhere or spec.infra != [LOCAL]:
        raise InfeasibleError(
            f"infra {', '.join(elsewhere or spec.infra)} cannot be provisioned",
            why="this version starts services on `infra: local` only", next="set infra: local", code="infra_unsupported",
        )  # fmt: skip
    counts: dict[tuple[str, str], int] = {}
    for row in saved.rows:
        if "+" in row.stage:
            raise InfeasibleError(
                f"{path}: {row.stage} is a bundle", why="this version starts every stage in a worker of its own",
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


def _read(path: Path) -> SavedPlan:
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
