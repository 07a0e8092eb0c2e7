"""Timings of the spec's models: the user's rows first, the published ones that come with disagctl where there are none."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

from msgspec.structs import replace

from disagctl.planning import shipped
from disagctl.planning.files import read_csv, refuse_fatal
from disagctl.planning.names import speaks_of
from disagctl.spec.schema import SYNTHETIC, ModelEntry, Spec
from planner.domain import Defect, Gpu, ModelFacts, Profile, Shape, StageFacts, Workload
from planner.facts import parse_profiles
from planner.facts.memory import peak_gib, weights_gib
from planner.facts.perf import cost_of
from stages.models.synthetic import StageOptions, parse

PRECISIONS: Final = {"auto": "bf16", "bfloat16": "bf16", "float16": "fp16", "float32": "fp32"}
LEAST_S, LEAST_GIB = 0.001, 0.1  # of a stage that does nothing
STAGES: Final = ("encode", "denoise", "decode")


def read_profiles(path: str | None, gpus: Sequence[Gpu]) -> tuple[list[Profile], list[Defect]]:
    """The user's rows. Raises SpecError naming file and line of the first bad one."""
    if path is None:
        return [], []
    rows, defects = parse_profiles(read_csv(Path(path), "profiles"), path, gpus)
    refuse_fatal(defects, "profiles_invalid")
    return rows, defects


def published(gpus: Sequence[Gpu]) -> list[Profile]:
    """The rows that come with disagctl; their defects were looked at when they were collected."""
    rows, _ = parse_profiles(shipped.text(shipped.PROFILES), shipped.PROFILES, gpus, strict=False)
    return rows


def rows_of(spec: Spec, own: Iterable[Profile], prior: Iterable[Profile]) -> dict[str, list[Profile]]:
    """Each model's rows, under its name in the spec. Where the user has rows of a model, published ones are not mixed in."""
    found: dict[str, list[Profile]] = {}
    own, prior = list(own), list(prior)
    for entry in spec.models:
        mine = [row for row in own if speaks_of(row.model, entry.name, entry.id)]
        rows = mine or [row for row in prior if speaks_of(row.model, entry.name, entry.id)]
        found[entry.name] = [replace(row, model=entry.name) for row in rows]
    return found


def declared(spec: Spec, workload: Workload, gpus: Iterable[Gpu]) -> dict[str, list[Profile]]:
    """A synthetic model waits for as long as its spec says, on any GPU: that is as good as measured."""
    found: dict[str, list[Profile]] = {}
    gpus = list(gpus)
    for entry in spec.models:
        if entry.id != SYNTHETIC:
            continue
        stages = parse(spec.source(entry).options)
        shapes = [one.shape for one in workload.classes if one.model == entry.name]
        found[entry.name] = [
            Profile(
                entry.name, stage, gpu.name, shape, seconds=max(_waits_s(options, shape) * options.share_of(count), LEAST_S),
                peak_gib=max(options.weights_gib, LEAST_GIB), source="measured", precision=PRECISIONS[entry.dtype],
                weights_gib=options.weights_gib, load_s=options.load_s, error=0.0, origin="declared in the spec",
                gpus=count,
            )
            for stage, options in stages.items() for shape in shapes for gpu in gpus
            for count in sorted({1, spec.wish(entry.name, stage).gpus})
        ]  # fmt: skip
    return found


def _waits_s(options: StageOptions, shape: Shape) -> float:
    return options.seconds if options.seconds_per_step is None else options.seconds_per_step * shape.steps


def unmatched(spec: Spec, own: Iterable[Profile]) -> str:
    """What to say when none of the user's rows is of the spec's models: a name is wrong somewhere. "" when all is well."""
    models = sorted({row.model for row in own})
    if not models or any(speaks_of(model, entry.name, entry.id) for model in models for entry in spec.models):
        return ""
    names = ", ".join(entry.name for entry in spec.models)
    return f"no row of the profiles is of {names}: they are of {', '.join(models)[:200]}"


def missing(entry: ModelEntry, rows: Iterable[Profile]) -> list[str]:
    """Stages of the model that no row times: those must be estimated. A model with stages of its own has what it has."""
    timed = {part for row in rows for part in row.stage.split("+") if row.precision == PRECISIONS[entry.dtype]}
    usual = {part.partition("_")[0] for part in timed}  # denoise_high and denoise_low denoise
    return [stage for stage in STAGES if stage not in usual] if usual & set(STAGES) or not timed else []


def with_memory(rows: Iterable[Profile], facts: Iterable[ModelFacts], gpus: Iterable[Gpu]) -> list[Profile]:
    """Rows that say nothing of memory (0) get what the model's config implies, at most what the GPU has: there it ran."""
    stages = {(fact.model, stage.stage): stage for fact in facts for stage in fact.stages}
    room = {gpu.name: gpu.usable_gib for gpu in gpus}
    return [_with_memory(row, stages, room) if row.peak_gib == 0 else row for row in rows]


def _with_memory(row: Profile, stages: Mapping[tuple[str, str], StageFacts], room: Mapping[str, float]) -> Profile:
    parts = [stages.get((row.model, stage)) for stage in row.stage.split("+")]
    known = [(part, cost) for part in parts if part for cost in [cost_of(part, row.shape)] if cost]
    if len(known) < len(parts):
        return row
    peaks = [peak_gib(part, cost, row.precision) for part, cost in known]
    weights = [weights_gib(part, row.precision) for part, _ in known]
    needed = sum(weights) + max(most - least for most, least in zip(peaks, weights, strict=True))
    return replace(row, peak_gib=min(needed, room.get(row.gpu, needed)), origin=f"{row.origin} [memory estimated]")
