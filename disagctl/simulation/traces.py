"""Traces: from a CSV of the user's, or from a generator by name; and back into a CSV."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from disagctl.errors import SpecError, UsageError
from disagctl.planning.files import read_csv, refuse_fatal
from disagctl.spec.suggest import did_you_mean
from planner.domain import Defect, RequestClass, Shape, Workload
from planner.facts.table import BadCell, number, read, whole
from planner.sim.scenario import Arriving, Trace
from planner.sim.traces import GENERATORS

COLUMNS: Final = ("arrival_s", "width", "height", "frames", "steps")
MOST_REQUESTS: Final = 500_000


def read_trace(path: Path, models: Sequence[str]) -> Trace:
    """A log of requests. Raises SpecError with file:line; rows need not be in order. The first arrival is the begin."""
    rows, defects = read(read_csv(path, "trace"), str(path), COLUMNS)
    found: list[Arriving] = []
    for row in rows:
        try:
            at = number(row, "arrival_s", least=0)
            width, height, frames, steps = (whole(row, column, least=1) for column in COLUMNS[1:])
        except BadCell as error:
            defects.append(Defect(row.where, str(error), fatal=True))
            continue
        model = row.text("model") or (models[0] if len(models) == 1 else "")
        if model not in models:
            said = f"the model {model!r} is none of the service's" if model else "the column model is missing"
            defects.append(Defect(row.where, f"{said}: {', '.join(models)}", fatal=True))
            continue
        found.append(Arriving(at, model, Shape(width, height, frames, steps)))
    refuse_fatal(defects, "trace_invalid")
    if len(found) < 2:
        raise SpecError(f"{path}:1: a trace needs at least two requests", code="trace_invalid")
    if len(found) > MOST_REQUESTS:
        raise SpecError(f"{path}:1: more than {MOST_REQUESTS} requests", next="simulate a part of them")
    found.sort(key=lambda one: one.at_s)
    begin = found[0].at_s
    if found[-1].at_s <= begin:
        raise SpecError(f"{path}:1: every request arrives at the same moment", code="trace_invalid")
    return Trace(path.name, tuple(Arriving(one.at_s - begin, one.model, one.shape) for one in found))


def generated(name: str, model: str, workload: Workload, seed: int) -> Trace:
    """A trace by its generator's name, of the workload's first two shapes at its rate. Raises UsageError for others."""
    if name not in GENERATORS:
        raise UsageError(
            f"--trace: there is no file {name!r}, and no generator of that name",
            why=did_you_mean(name, list(GENERATORS)), next="a CSV with arrival_s,width,height,frames,steps[,model]",
        )  # fmt: skip
    mine = [one for one in workload.classes if one.model == model]
    return GENERATORS[name](model, _pair(mine), 60 * sum(one.rate_per_s for one in mine), seed)


def _pair(classes: Sequence[RequestClass]) -> tuple[Shape, Shape]:
    first = classes[0].shape
    if len(classes) > 1:
        return first, classes[1].shape
    return first, Shape(first.width, first.height, first.frames, 1, first.guidance)


def workload_of(trace: Trace, slo_s: dict[str, float]) -> Workload:
    """The whole trace as classes with their mean rates."""
    span = max(trace.end_s, 1.0)
    counts: dict[tuple[str, Shape], int] = {}
    for row in trace.rows:
        counts[row.model, row.shape] = counts.get((row.model, row.shape), 0) + 1
    return Workload(tuple(RequestClass(m, shape, n / span, slo_s.get(m)) for (m, shape), n in counts.items()))


def as_csv(trace: Trace) -> str:
    """What :func:`read_trace` reads."""
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow((*COLUMNS, "model"))
    for at_s, model, shape in ((row.at_s, row.model, row.shape) for row in trace.rows):
        writer.writerow((f"{at_s:g}", shape.width, shape.height, shape.frames, shape.steps, model))
    return out.getvalue()
