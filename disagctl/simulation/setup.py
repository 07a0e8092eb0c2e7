"""A spec, a trace and timings into a scenario."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec
from msgspec.structs import replace

from disagctl.errors import InfeasibleError, UsageError
from disagctl.planning import shipped
from disagctl.planning.demand import demand
from disagctl.planning.files import Lines
from disagctl.planning.fits import fits_of
from disagctl.planning.gather import gather
from disagctl.planning.profiles import PRECISIONS, declared, read_profiles, rows_of
from disagctl.planning.protocol import Job
from disagctl.planning.renter import as_planned, precisions_of
from disagctl.planning.solver_process import solve
from disagctl.simulation.fleets import local_fleet, rented_fleet
from disagctl.simulation.traces import generated, read_trace, workload_of
from disagctl.spec import Spec
from disagctl.spec.infra import LOCAL
from disagctl.spec.schema import SYNTHETIC
from disagctl.spec.schema import Workload as WishedWorkload
from planner.domain import Profile, Role, Shape
from planner.facts import Book, parse_gpus
from planner.facts.perf import LEAST_LOAD_S, LOAD_GIB_PER_S
from planner.plan import Infeasible, Plan, PlanRequest
from planner.run.config import PolicyConfig, RoleBounds
from planner.run.fleet import NodeWish
from planner.run.rent import seating_of
from planner.run.seating import Fits, Seating
from planner.sim.scenario import Noise, Scenario, Seconds, Trace

PLAN_S: Final = 30.0


class Wish(msgspec.Struct, frozen=True):
    """The command line. ``trace``: a file or a generator's name."""

    spec: Path
    trace: str
    profiles: str | None = None
    workers: int | None = None
    seed: int = 1
    noise: Noise = Noise()
    elastic: bool = False


class Setup(msgspec.Struct):
    """A scenario, and what has to be said of it. ``request``: for solving again, when nodes may be rented."""

    scenario: Scenario
    warnings: list[str]
    request: PlanRequest | None = None


def set_up(spec: Spec, wish: Wish) -> Setup:
    """Raises SpecError for what is wrong in a file, InfeasibleError where nothing is known of a stage."""
    names = [entry.name for entry in spec.models]
    slo = {entry.name: p95 for entry in spec.models if (p95 := spec.slo_of(entry).p95_s) is not None}
    path = Path(wish.trace)
    trace = read_trace(path, names) if path.is_file() else None
    if trace is not None:
        spec.workload = WishedWorkload(trace=str(path))
        for entry in spec.models:
            entry.workload = None
    if spec.infra == [LOCAL]:
        if wish.elastic:
            raise UsageError("--elastic: there is nothing to rent on infra: local", next="name clouds with --infra")
        return _local(spec, wish, trace, slo)
    inputs = gather(spec, wish.spec, profiles=wish.profiles)
    trace = trace or generated(wish.trace, names[0], inputs.request.workload, wish.seed)
    workload = workload_of(trace, slo)
    stages = {model.name: model.stages for model in inputs.request.models}
    profiles = list(inputs.request.profiles)
    for name, rows in declared(spec, workload, inputs.request.gpus).items():
        profiles = [row for row in profiles if row.model != name] + rows
    rules = tuple(replace(rule, gpus=None) for rule in inputs.request.rules)
    request = replace(inputs.request, workload=workload, profiles=tuple(profiles), rules=rules, max_gpus_per_replica=1)
    book = Book(request.profiles, request.facts, request.gpus)
    times, fits = _Times(book, precisions_of(request)), fits_of(request, book)
    roles = [Role(model, stage) for model, names_ in stages.items() for stage in names_]
    nodes, plan, said = rented_fleet(request, wish.workers, trace, times.seconds, roles, fits, _solve)
    seating: Seating | None = None
    if plan is not None:
        request = as_planned(request, plan)
        times, fits, seating = _Times(book, precisions_of(request)), fits_of(request, book), seating_of(plan)
    scenario = _scenario(spec, wish, trace, (stages, slo, nodes), times, (fits, seating))
    return Setup(scenario, [*inputs.warnings, *_unheeded(spec), *([said] if said else [])], request)


def _unheeded(spec: Spec) -> list[str]:
    """Warnings about keys that the simulation does not follow."""
    wide = [key for key, wish in spec.stages.items() if wish.gpus > 1]
    return [f"stages.{key}.gpus_per_replica is not simulated: each worker has one GPU" for key in wide]


def _local(spec: Spec, wish: Wish, trace: Trace | None, slo: dict[str, float]) -> Setup:
    gpus = parse_gpus(shipped.text(shipped.GPUS), shipped.GPUS)
    own, _ = read_profiles(wish.profiles or spec.profiles, gpus)
    trace = trace or generated(wish.trace, spec.models[0].name, demand(spec, {}, Lines(wish.spec)), wish.seed)
    workload = workload_of(trace, slo)
    rows = rows_of(spec, own, ())
    rows |= {name: found for name, found in declared(spec, workload, gpus).items() if not rows[name]}
    if not all(rows.values()):
        name = next(name for name, found in rows.items() if not found)
        raise InfeasibleError(
            f"nothing is known of how long {name} takes on this machine", why="there are no timings of it",
            next=f"profile first: disagctl profile {name} -f profiles.csv, then --profiles profiles.csv", code="profile_first",
        )  # fmt: skip
    book = Book([row for found in rows.values() for row in found], (), gpus)
    stages = {
        entry.name: tuple(entry.stages) if entry.id == SYNTHETIC and entry.stages else book.stages(entry.name)
        for entry in spec.models
    }
    bounds = [(b.least, b.most) for b in _bounds(spec, stages)]
    own_formats = {entry.name: PRECISIONS[entry.dtype] for entry in spec.models}
    precisions = {Role(name, stage): own_formats[name] for name, names in stages.items() for stage in names}
    times = _Times(book, precisions, local=_commonest(rows))
    nodes = local_fleet(wish.workers or spec.policy.workers, bounds)
    return Setup(_scenario(spec, wish, trace, (stages, slo, nodes), times), _unheeded(spec))


def _scenario(
    spec: Spec,
    wish: Wish,
    trace: Trace,
    world: tuple[dict[str, tuple[str, ...]], dict[str, float], tuple[NodeWish, ...]],
    times: "_Times",
    may: tuple[Fits | None, Seating | None] = (None, None),
) -> Scenario:
    stages, slo, nodes = world
    fits, seating = may
    accelerators = {node.offers[0].accelerator for node in nodes}
    loads: dict[Role, float] = {}
    for row in {(row.model, row.shape): row for row in trace.rows}.values():
        for stage in stages[row.model]:
            role = Role(row.model, stage)
            allowed = (
                {n for n, own in fits.items() if any(role in one for one in own)} if fits is not None else accelerators
            )
            for name in sorted(allowed & accelerators):
                times.known(role, name, row.shape)
                loads[role] = max(loads.get(role, 0.0), times.load_s(role, name, row.shape))
    policy = PolicyConfig(
        roles=_bounds(spec, stages),
        mode=spec.policy.scaling,
        slo_p95_s=slo,
        load_s=loads,
        launch_s=max(node.offers[0].launch_s for node in nodes),
        interval_s=spec.policy.interval_s,
        elastic=wish.elastic,
        max_usd_per_hour=spec.budget.max_usd_per_hour,
        max_usd_total=spec.budget.max_usd_total,
        fits=fits,
        seating=seating,
    )
    prefetch = spec.pipeline.prefetch if spec.pipeline.mode == "async" else 0
    return Scenario(
        trace, stages, times.seconds, loads, nodes, policy, slo, wish.noise, wish.seed, prefetch,
        synchronous=spec.pipeline.mode == "sync",
    )  # fmt: skip


def _bounds(spec: Spec, stages: dict[str, tuple[str, ...]]) -> tuple[RoleBounds, ...]:
    found = []
    for model, names in stages.items():
        for stage in names:
            wished = spec.wish(model, stage).replicas
            found.append(
                RoleBounds(Role(model, stage), max(wished.min, 1) if wished else 1, wished.max if wished else None)
            )
    return tuple(found)


def _commonest(rows: dict[str, list[Profile]]) -> str:
    """The GPU that most rows are of: this machine's, as far as the profiles tell."""
    names = [row.gpu for found in rows.values() for row in found]
    return max(sorted(set(names)), key=names.count)


def _solve(request: PlanRequest) -> Plan | Infeasible:
    found = solve(Job(request, PLAN_S, alternatives=False)).plan
    assert found is not None  # noqa: S101  # an answer without error has one
    return found


class _Times:
    """Service and load times from the profiles. ``local``: the GPU whose rows are this machine's."""

    def __init__(self, book: Book, precisions: Mapping[Role, str], local: str = "") -> None:
        self._book, self._local = book, local
        self._precision = precisions
        self._cache: dict[tuple[Role, str, Shape], float] = {}
        self.seconds: Seconds = self._seconds

    def _seconds(self, role: Role, accelerator: str, shape: Shape) -> float:
        """Raises LookupError where nothing is known."""
        key = (role, accelerator, shape)
        if key not in self._cache:
            found = self._book.predict(
                role.model, role.stage, self._local or accelerator, shape, 1, self._precision[role]
            )
            if found is None:
                raise LookupError(f"{role} on {accelerator}")
            self._cache[key] = found.seconds
        return self._cache[key]

    def known(self, role: Role, accelerator: str, shape: Shape) -> None:
        """Raise InfeasibleError where nothing is known."""
        try:
            self._seconds(role, accelerator, shape)
        except LookupError:
            raise InfeasibleError(
                f"nothing is known of how long {role} takes on {accelerator}", why=f"there is no timing for {shape}",
                next=f"profile first: disagctl profile {role.model} -f profiles.csv, then --profiles profiles.csv",
                code="profile_first",
            ) from None  # fmt: skip

    def load_s(self, role: Role, accelerator: str, shape: Shape) -> float:
        """Measured or derived from the weights; ten seconds at least where it is derived."""
        found = self._book.predict(role.model, role.stage, self._local or accelerator, shape, 1, self._precision[role])
        if found is None or (found.load_s is None and found.weights_gib is None):
            return LEAST_LOAD_S
        return (
            found.load_s if found.load_s is not None else max((found.weights_gib or 0) / LOAD_GIB_PER_S, LEAST_LOAD_S)
        )
