"""A profiles CSV into profiles. Rows that no such GPU could have produced are refused.

Columns: model,stage,gpu,width,height,frames,steps,seconds,peak_gib,source
[,gpus,precision,batch,weights_gib,load_s,error,guidance,origin].
"""

from collections.abc import Iterable, Mapping

from planner.domain import Defect, Gpu, ModelFacts, Profile, Shape
from planner.facts import names
from planner.facts.table import BadCell, Cells, number, read, whole, word

REQUIRED = ("model", "stage", "gpu", "width", "height", "frames", "steps", "seconds", "peak_gib", "source")
SOURCES = ("measured", "published", "estimated")
PEAK_MARGIN = 1.0  # share of the dense peak above which a time is not believed


def parse_profiles(
    text: str,
    name: str = "profiles",
    gpus: Iterable[Gpu] = (),
    facts: Iterable[ModelFacts] = (),
    *,
    strict: bool = True,
) -> tuple[list[Profile], list[Defect]]:
    """Profiles of a CSV; rows that imply more than 100 % of a GPU's peak are refused where the FLOPs are known (``facts``).

    ``gpus``: when given, a GPU that is not among them (nor known by another name) is a defect. ``strict`` as in parse_catalog.
    """
    cards = {gpu.name: gpu for gpu in gpus}
    known = {fact.model: fact for fact in facts}
    rows, defects = read(text, name, REQUIRED)
    found: dict[tuple[object, ...], Profile] = {}
    for row in rows:
        try:
            profile = None if row.text("gpu").upper() == "CPU" else _profile(row, cards)
            if profile is not None:
                impossible(profile, cards, known)
        except BadCell as error:
            defects.append(Defect(row.where, str(error), fatal=strict))
            continue
        if profile is None:
            defects.append(Defect(row.where, "measured on a CPU, which says nothing of a GPU: row left out"))
            continue
        if profile.batch > 1:
            defects.append(Defect(row.where, f"batch {profile.batch}: batches are not planned: row left out"))
            continue
        if profile.peak_gib == 0:
            defects.append(Defect(row.where, "peak_gib is 0: memory is not checked for this row"))
        key = (
            profile.model,
            profile.stage,
            profile.gpu,
            profile.shape,
            profile.gpus,
            profile.precision,
            profile.source,
        )
        if key in found:
            defects.append(
                Defect(row.where, f"the same stage, GPU and shape as {found[key].origin}: the later row is kept")
            )
        found[key] = profile
    if not rows and not defects:
        defects.append(Defect(f"{name}:1", "no rows", fatal=True))
    return list(found.values()), defects


def _profile(row: Cells, cards: Mapping[str, Gpu]) -> Profile:
    written = word(row, "gpu")
    gpu = names.canonical(written)
    if gpu is None or (cards and gpu not in cards):
        raise BadCell(f"unknown GPU {written!r} (SkyPilot's names are used: {', '.join(list(cards) or names.known())})")
    source = word(row, "source")
    if source not in SOURCES:
        raise BadCell(f"source: {source!r} is none of {', '.join(SOURCES)}")
    guidance = row.text("guidance").lower()
    if guidance not in {"", "0", "1", "false", "true", "no", "yes"}:
        raise BadCell(f"guidance: {guidance!r} is neither yes nor no")
    note = row.text("origin")
    weights = number(row, "weights_gib", least=0) if row.text("weights_gib") else None
    peak = number(row, "peak_gib", least=0)
    if weights is not None and weights > peak > 0:
        raise BadCell(f"weights_gib {weights:g} is more than peak_gib {peak:g}")
    return Profile(
        model=word(row, "model"),
        stage=word(row, "stage").replace(" ", ""),
        gpu=gpu,
        shape=Shape(
            whole(row, "width", least=1),
            whole(row, "height", least=1),
            whole(row, "frames", least=1),
            whole(row, "steps", least=1),
            guidance in {"1", "true", "yes"},
        ),
        seconds=number(row, "seconds", above=0),
        peak_gib=peak,
        source=source,
        gpus=whole(row, "gpus", default=1, least=1),
        precision=row.text("precision") or "bf16",
        batch=whole(row, "batch", default=1, least=1),
        weights_gib=weights,
        load_s=number(row, "load_s", least=0) if row.text("load_s") else None,
        error=number(row, "error", least=0) if row.text("error") else None,
        origin=f"{row.where} {note}".strip(),
    )


def engine_tflops(gpu: Gpu, precision: str) -> float:
    """The dense peak of the unit that does the work: 8-bit formats have their own."""
    if precision.startswith(("fp8", "int8")):
        return gpu.fp8_tflops or 2 * gpu.tflops
    return gpu.tflops


def impossible(profile: Profile, cards: Mapping[str, Gpu], facts: Mapping[str, ModelFacts]) -> None:
    """Raise BadCell when the row's time would need more than the GPU's dense peak. Counts one pass a step: a lower bound."""
    gpu, known = cards.get(profile.gpu), facts.get(profile.model)
    if gpu is None or known is None:
        return
    work = 0.0
    for stage in known.stages:
        if stage.stage in profile.stage.split("+"):
            same = [c for c in stage.costs if (c.shape.width, c.shape.height, c.shape.frames) == _size(profile.shape)]
            if same:
                steps = profile.shape.steps if stage.kind == "transformer" and same[0].passes > 1 else 1
                work += (same[0].linear_pflop + same[0].attention_pflop) * steps
    peak = engine_tflops(gpu, profile.precision) * profile.gpus / 1000  # PFLOP/s
    share = work * profile.batch / profile.seconds / peak
    if share > PEAK_MARGIN:
        raise BadCell(
            f"{profile.model} {profile.stage} on {profile.gpu}: {profile.seconds:g} s for {work * profile.batch:.3g} PFLOP "
            f"is {share:.0%} of the card's dense peak"
        )


def _size(shape: Shape) -> tuple[int, int, int]:
    return shape.width, shape.height, shape.frames
