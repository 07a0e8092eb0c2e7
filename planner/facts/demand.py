"""Demand: classes of requests with their rates, from a specification or from a trace of arrivals."""

import itertools
import math
from collections import Counter, defaultdict
from collections.abc import Iterable

from planner.domain import Defect, RequestClass, Shape, Workload
from planner.facts.table import BadCell, number, read, whole

REQUIRED = ("arrival_s", "width", "height", "frames", "steps")


def workload_of(classes: Iterable[RequestClass], cv2: float = 1.0) -> tuple[Workload, list[Defect]]:
    """Classes merged by (model, shape, SLO); a rate that is not positive is a fatal defect."""
    rates: dict[tuple[str, Shape, float | None], float] = defaultdict(float)
    defects: list[Defect] = []
    for item in classes:
        label = f"workload: {item.model} {item.shape}"
        if not (math.isfinite(item.rate_per_s) and item.rate_per_s > 0):
            defects.append(Defect(label, f"rate {item.rate_per_s:g} must be above 0", fatal=True))
        elif item.p95_s is not None and not (math.isfinite(item.p95_s) and item.p95_s > 0):
            defects.append(Defect(label, f"p95 {item.p95_s:g} s must be above 0", fatal=True))
        else:
            rates[item.model, item.shape, item.p95_s] += item.rate_per_s
    if not (math.isfinite(cv2) and cv2 >= 0):
        defects.append(Defect("workload", f"cv2 {cv2:g} must be at least 0", fatal=True))
    if not rates and not defects:
        defects.append(Defect("workload", "no requests", fatal=True))
    merged = tuple(RequestClass(model, shape, rate, p95) for (model, shape, p95), rate in rates.items())
    return Workload(merged, cv2), defects


def parse_trace(
    text: str, name: str = "trace", model: str = "", p95_s: float | None = None
) -> tuple[Workload | None, list[Defect]]:
    """Demand from arrivals: classes with their rates, and cv2 of the time between arrivals. None when a defect is fatal.

    The rate is the count over the span, one mean gap longer than from first to last; ``model`` fills an absent column.
    """
    rows, defects = read(text, name, REQUIRED)
    arrivals: list[float] = []
    counts: Counter[tuple[str, Shape]] = Counter()
    for row in rows:
        try:
            arrivals.append(number(row, "arrival_s", least=0))
            width, height, frames, steps = (whole(row, column, least=1) for column in REQUIRED[1:])
        except BadCell as error:
            defects.append(Defect(row.where, str(error), fatal=True))
            continue
        counts[row.text("model") or model, Shape(width, height, frames, steps)] += 1
    if len(arrivals) < 2 and not defects:
        defects.append(Defect(f"{name}:1", "a trace needs at least two arrivals", fatal=True))
    if any(defect.fatal for defect in defects):
        return None, defects
    arrivals.sort()
    gaps = [after - before for before, after in itertools.pairwise(arrivals)]
    mean = sum(gaps) / len(gaps)
    if mean <= 0:
        return None, [*defects, Defect(f"{name}:1", "every request arrives at the same moment: no rate", fatal=True)]
    cv2 = sum((gap - mean) ** 2 for gap in gaps) / len(gaps) / mean**2
    span = mean * len(arrivals)
    classes = tuple(RequestClass(which, shape, count / span, p95_s) for (which, shape), count in counts.items())
    return Workload(classes, cv2), defects
