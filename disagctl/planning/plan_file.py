"""A plan that was saved with ``disagctl plan -o json``: read back and held against itself.

read_plan(path)                      SavedPlan; SpecError for a file that is none
seating(saved)                       which replica goes on which node
keep(document, path), kept(folder)   the plan that a live service runs by
"""

import os
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from disagctl.errors import InfeasibleError, SpecError
from disagctl.planning.digest import Digests
from planner.domain import Offer
from planner.plan import NodeCount, Plan, Row, Running, SolverReport
from planner.precision import of_stages

SCHEMA_VERSION: Final = 1
MAX_BYTES: Final = 16 << 20
FILE: Final = "plan.json"  # in a service's folder
_NEXT: Final = "disagctl plan SPEC -o json > FILE writes one"

Count = Annotated[int, Meta(ge=1, le=100_000)]
Nodes = Annotated[int, Meta(ge=1, le=10_000)]
Amount = Annotated[float, Meta(ge=0, le=1e9)]
Text = Annotated[str, Meta(min_length=1, max_length=200)]


class SavedOffer(msgspec.Struct, frozen=True):
    """A machine, as a plan names it. ``usd_per_hour`` is None where it has no price (this machine)."""

    cloud: Text
    instance_type: Text
    accelerator: Text
    count: Annotated[int, Meta(ge=0, le=64)]
    spot: bool
    region: Annotated[str, Meta(max_length=200)] = ""
    usd_per_hour: Amount | None = None
    launch_s: Amount = 300.0

    @property
    def sku(self) -> tuple[str, str, str, str, int, bool]:
        """What it is, apart from its price."""
        return self.cloud, self.region, self.instance_type, self.accelerator, self.count, self.spot

    def __str__(self) -> str:
        return f"{self.cloud}/{self.region} {self.instance_type} {self.accelerator}:{self.count}{' spot' if self.spot else ''}"

    def offer(self) -> Offer:
        """As the planner has it."""
        return Offer(*self.sku, usd_per_hour=self.usd_per_hour or 0.0, launch_s=self.launch_s)


class SavedRow(msgspec.Struct, frozen=True):
    """Replicas of a stage, or of a bundle (``encode+decode``), on nodes of one offer; rows may share nodes."""

    model: Text
    stage: Text
    offer: SavedOffer
    nodes: Nodes
    replicas: Count
    gpus_per_replica: Annotated[int, Meta(ge=0, le=64)] = 1
    precision: Text = "bf16"
    load_s: Amount | None = None

    @property
    def stages(self) -> tuple[str, ...]:
        """The stages that each replica runs."""
        return tuple(self.stage.split("+"))


class SavedNodes(msgspec.Struct, frozen=True):
    """What is rented of one offer."""

    offer: SavedOffer
    nodes: Nodes


class SavedModel(msgspec.Struct, frozen=True):
    """A model and all of its stages, in order."""

    name: Text
    stages: list[Text]


class SavedPlan(msgspec.Struct, frozen=True):
    """A plan document, as far as it is needed again. ``digests``: of the spec's parts that it was made for."""

    schema_version: int
    name: Text
    feasible: bool
    usd_per_hour: Amount = 0.0
    egress_usd_per_hour: Amount = 0.0
    rows: list[SavedRow] = []
    nodes: list[SavedNodes] = []
    models: list[SavedModel] = []
    spec: Digests | None = None

    @property
    def rent(self) -> float:
        """USD an hour of the nodes."""
        return sum(one.nodes * (one.offer.usd_per_hour or 0.0) for one in self.nodes)

    def running(self) -> tuple[Running, ...]:
        """The nodes, as what runs already."""
        return tuple(Running(one.offer.offer(), one.nodes) for one in self.nodes)

    def plan(self) -> Plan:
        """As the planner has it, as far as it is needed to compare."""
        rows = tuple(
            Row(r.model, r.stage, r.offer.offer(), r.nodes, r.replicas, r.gpus_per_replica, 0.0, 0.0, 0.0, "", ())
            for r in self.rows
        )
        nodes = tuple(
            NodeCount(one.offer.offer(), one.nodes, one.nodes * (one.offer.usd_per_hour or 0.0)) for one in self.nodes
        )
        return Plan(self.usd_per_hour, 0.0, 0.0, 0.0, rows, nodes, SolverReport("saved", 0.0, 0.0))


class Seat(msgspec.Struct, frozen=True):
    """One replica on a node. ``precisions``: of each stage, as planner.precision names them."""

    model: str
    stages: tuple[str, ...]
    gpus: int
    precisions: tuple[str, ...]


class SeatedNode(msgspec.Struct, frozen=True):
    """One node to rent, and the replicas that go there."""

    offer: SavedOffer
    seats: tuple[Seat, ...]


def read_plan(path: Path) -> SavedPlan:
    """Raises SpecError for a file that is no plan, or one that contradicts itself; InfeasibleError for one that says no."""
    data = _read(path)
    try:
        saved = msgspec.json.decode(data, type=SavedPlan)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as err:
        raise broken(path, "this is not a plan", str(err), data) from err
    if saved.schema_version != SCHEMA_VERSION:
        raise broken(
            path, "a plan of another version", f"{saved.schema_version}, and this disagctl writes {SCHEMA_VERSION}"
        )
    if not saved.feasible or not saved.rows:
        raise InfeasibleError(f"{path} says that there is no plan", next="change the spec and plan it again")
    _coherent(path, saved)
    return saved


def whole(path: Path) -> Plan:
    """All that a plan says, not only what is needed to follow it. Raises SpecError for a file that lacks some of it."""
    data = _read(path)
    try:
        return msgspec.convert({**msgspec.json.decode(data, type=dict[str, Any]), "type": "plan"}, Plan)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as err:
        raise broken(path, "the plan is not whole", str(err), data) from err


def seating(saved: SavedPlan) -> list[SeatedNode]:
    """Which replicas go on which node: the largest first, onto the first node with room. ValueError: they do not fit."""
    nodes: list[tuple[SavedOffer, list[Seat]]] = [(one.offer, []) for one in saved.nodes for _ in range(one.nodes)]
    left = [offer.count for offer, _ in nodes]
    for row in sorted(saved.rows, key=lambda row: -row.gpus_per_replica):
        todo, precisions = row.replicas, tuple(of_stages(row.precision, row.stages).values())
        for at, (offer, seats) in enumerate(nodes):
            fits = min(todo, left[at] // max(row.gpus_per_replica, 1)) if offer.sku == row.offer.sku else 0
            seats += [Seat(row.model, row.stages, row.gpus_per_replica, precisions)] * fits
            left[at] -= fits * row.gpus_per_replica
            todo -= fits
        if todo:
            raise ValueError(f"{todo} replicas of {row.model} {row.stage} find no GPU on {row.offer}")
    return [SeatedNode(offer, tuple(seats)) for offer, seats in nodes]


def keep(document: dict[str, Any], folder: Path) -> None:
    """Save a plan document with the service that is started by it."""
    target = folder / FILE
    draft = target.with_suffix(".new")
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(msgspec.json.format(msgspec.json.encode(document)))
        file.flush()
        os.fsync(file.fileno())
    draft.replace(target)


def kept(folder: Path) -> SavedPlan | None:
    """The plan that the service in this folder runs by; None when there is none that rents anything."""
    path = folder / FILE
    if not path.is_file():
        return None
    saved = read_plan(path)
    return saved if saved.nodes else None


def broken(path: Path, what: str, why: str, data: bytes = b"") -> SpecError:
    """The error for a file that is no good; finds the line where the parser says which byte."""
    at = why.rpartition("byte ")[2].rstrip(")").strip()
    line = data[: int(at)].count(b"\n") + 1 if at.isascii() and at.isdigit() else 1
    return SpecError(f"{path}:{line}: {what}", why=why, next=_NEXT, code="plan_invalid")


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as err:
        raise broken(path, "cannot read the plan", getattr(err, "strerror", None) or str(err)) from err
    if len(data) > MAX_BYTES:
        raise broken(path, "this is not a plan", f"it is larger than {MAX_BYTES >> 20} MiB")
    return data.removeprefix(b"\xef\xbb\xbf")


def _coherent(path: Path, saved: SavedPlan) -> None:
    """Rows stand on rented nodes, and every stage of every model is served."""
    if all(row.offer.usd_per_hour is None for row in saved.rows) and not saved.nodes:
        return  # this machine
    try:
        seating(saved)
    except ValueError as err:
        raise broken(path, "the plan's rows do not fit on its nodes", str(err)) from err
    if any(one.offer.usd_per_hour is None for one in saved.nodes):
        raise broken(path, "the plan does not say what its nodes cost", "offer.usd_per_hour is missing")
    for model in saved.models:
        served = {stage for row in saved.rows if row.model == model.name for stage in row.stages}
        if served != set(model.stages):
            missing = sorted(set(model.stages) ^ served)
            raise broken(
                path, f"the plan's rows do not serve {model.name}", f"{', '.join(missing)} is missing or unknown"
            )
    if saved.usd_per_hour + 0.01 < saved.rent:
        raise broken(
            path, "the plan's total is less than its nodes cost", f"{saved.usd_per_hour:.2f} < {saved.rent:.2f}"
        )
