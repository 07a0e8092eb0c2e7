"""What is to be served: the spec's rates and shapes, or a trace, as the planner's workload."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from disagctl.errors import SpecError
from disagctl.planning.files import Lines, read_csv, refuse_fatal
from disagctl.planning.repos import Repo
from disagctl.spec.schema import SYNTHETIC, ModelEntry, Spec
from disagctl.spec.schema import Shape as WishedShape
from disagctl.spec.units import Size
from planner.domain import RequestClass, Shape, Workload
from planner.facts import parse_trace, workload_of

Repos = Mapping[str, Repo | None]
_SYNTHETIC_SIDE: Final = 512


def demand(spec: Spec, repos: Repos, lines: Lines) -> Workload:
    """Classes of all models. Raises SpecError with file:line for a trace or a shape that will not do."""
    classes: list[RequestClass] = []
    irregular: list[float] = []  # of the time between arrivals; 1 for a rate alone
    for index, entry in enumerate(spec.models):
        workload = spec.workload_of(entry)
        shared = workload is spec.workload
        if workload.trace:
            if shared and index:
                continue  # one trace of the whole service: read with the first model
            traced = _traced(spec, entry, workload.trace, [e for e in spec.models if shared or e is entry])
            classes += traced.classes
            irregular.append(traced.cv2)
            continue
        irregular.append(1.0)
        rate = (workload.rate_per_min or 0.0) / 60
        wished = workload.shapes or [_own_shape(entry, repos, lines.at("workload"))]
        total = sum(shape.share for shape in wished)
        p95 = spec.slo_of(entry).p95_s
        at = lines.at("workload", "shapes")
        for shape in wished:
            own = shape.slo.p95_s if shape.slo is not None else p95
            classes.append(RequestClass(entry.name, _shape(shape, entry, repos, at), rate * shape.share / total, own))
    made, defects = workload_of(classes, max(irregular))
    refuse_fatal(defects, "workload_invalid")
    return made


def _traced(spec: Spec, entry: ModelEntry, trace: str, allowed: list[ModelEntry]) -> Workload:
    text = read_csv(Path(trace), "trace")
    made, defects = parse_trace(text, trace, model=entry.name if len(allowed) == 1 else "")
    refuse_fatal(defects, "trace_invalid")
    if made is None:
        raise SpecError(f"{trace}:1: the trace holds no requests", code="trace_invalid")
    objectives = {e.name: spec.slo_of(e).p95_s for e in allowed}
    for one in made.classes:
        if one.model not in objectives:
            what = f"the model {one.model!r} is none of the service's" if one.model else "the column model is missing"
            raise SpecError(f"{trace}:1: {what}", why=f"its models: {', '.join(objectives)}", code="trace_invalid")
    classes = tuple(msgspec.structs.replace(one, p95_s=objectives[one.model]) for one in made.classes)
    return Workload(classes, made.cv2)


def _own_shape(entry: ModelEntry, repos: Repos, at: str) -> WishedShape:
    """What the model makes when nothing is asked of it."""
    if entry.id == SYNTHETIC:
        return WishedShape(Size(_SYNTHETIC_SIDE, _SYNTHETIC_SIDE), steps=1)
    repo = repos.get(entry.name)
    if repo is None or not {"width", "height"} <= repo.defaults.keys():
        raise SpecError(
            f"{at}: shapes are missing", why=f"what {entry.name} makes by itself is not known here",
            next="shapes: [{size: 832x480, frames: 81, steps: 50}]",
        )  # fmt: skip
    known = repo.defaults
    return WishedShape(Size(known["width"], known["height"]), frames=known.get("num_frames", 1))


def _shape(wished: WishedShape, entry: ModelEntry, repos: Repos, at: str) -> Shape:
    repo = repos.get(entry.name)
    steps = (
        wished.steps
        or (1 if entry.id == SYNTHETIC else None)
        or (repo.defaults.get("num_inference_steps") if repo else None)
    )
    if not steps:
        raise SpecError(
            f"{at}: a shape needs its steps", why=f"those of {entry.name} are not known here", next="steps: 50"
        )
    twice = repo.two_passes(wished.guidance) if repo else (wished.guidance or 0.0) > 1
    return Shape(wished.size.width, wished.size.height, wished.frames, steps, twice)
