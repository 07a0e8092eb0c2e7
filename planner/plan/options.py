"""Which stages may run together on which GPU, and how long each class takes there: the options of the problem.

Everything here follows from the request alone; nothing is dropped but what cannot run (no time known, too big, ruled out).
"""

from collections.abc import Iterator
from itertools import islice, product

import msgspec

from planner.domain import Prediction
from planner.facts.perf import Book
from planner.plan.request import ModelSpec, PlanRequest, StageRule
from planner.precision import of_bundle, of_stages, resolved

MOST_COMBINATIONS = 64  # of the precisions of a bundle's stages


class Option(msgspec.Struct, frozen=True):
    """Replicas of one bundle of stages on ``gpus`` GPUs of a type. ``served``: class index → prediction, where it fits."""

    index: int
    model: str
    stages: tuple[str, ...]
    gpu: str
    gpus: int
    precision: str
    served: dict[int, Prediction]
    spot: bool | None = None  # only these offers; None: both
    kinds: frozenset[str] | None = None  # only these; None: all

    @property
    def bundle(self) -> str:
        """``encode+decode``; a stage alone is its own bundle."""
        return "+".join(self.stages)


class Universe(msgspec.Struct, frozen=True):
    """All options, and why the rest are none. ``refused``: (model, bundle, gpu) → reason, for explanations."""

    request: PlanRequest
    stages: dict[str, tuple[str, ...]]  # of each model, in order
    bundles: dict[str, tuple[tuple[str, ...], ...]]
    options: tuple[Option, ...]
    refused: dict[tuple[str, str, str], str]
    classes_of: dict[str, tuple[int, ...]]


def bundles_of(
    stages: tuple[str, ...], named: set[str], *, bundles: bool, singles: bool
) -> tuple[tuple[str, ...], ...]:
    """Every stage alone; with ``bundles`` also first+last, all but the first, the middle ones, all, and those named by rows."""
    whole = stages
    found: dict[tuple[str, ...], None] = dict.fromkeys((stage,) for stage in stages) if singles else {}
    if bundles and singles and len(stages) > 1:
        middle = stages[1:-1]
        wanted = [(stages[0], stages[-1]), stages[1:], whole, middle]
        wanted += [tuple(name.split("+")) for name in sorted(named)]
        order = {stage: at for at, stage in enumerate(stages)}
        for bundle in wanted:
            if len(bundle) > 1 and all(stage in order for stage in bundle):
                found[tuple(sorted(set(bundle), key=order.__getitem__))] = None
    if not singles or (len(stages) == 1):
        found[whole] = None
    return tuple(found)


def enumerate_options(request: PlanRequest, book: Book) -> Universe:
    """The universe of a request."""
    names = tuple(dict.fromkeys(item.model for item in request.workload.classes))
    specs = {spec.name: spec for spec in request.models}
    classes = {
        name: tuple(k for k, item in enumerate(request.workload.classes) if item.model == name) for name in names
    }
    stages: dict[str, tuple[str, ...]] = {}
    bundles: dict[str, tuple[tuple[str, ...], ...]] = {}
    options: list[Option] = []
    refused: dict[tuple[str, str, str], str] = {}
    offered = sorted({offer.accelerator: offer.count for offer in request.offers})
    largest = {gpu: max(o.count for o in request.offers if o.accelerator == gpu) for gpu in offered}
    for name in names:
        spec = specs.get(name, ModelSpec(name))
        stages[name] = spec.stages or book.stages(name)
        bundles[name] = bundles_of(stages[name], book.bundles(name), bundles=request.bundles, singles=request.singles)
        rules = {rule.stage: rule for rule in request.rules if rule.model == name}
        for bundle in bundles[name]:
            own = [rules[stage] for stage in bundle if stage in rules]
            for gpu in offered:
                made, why = _on_gpu(request, book, spec, bundle, gpu, largest[gpu], own, classes[name])
                options.extend(msgspec.structs.replace(option, index=len(options) + n) for n, option in enumerate(made))
                if why and not made:
                    refused[name, "+".join(bundle), gpu] = why
    return Universe(request, stages, bundles, tuple(options), refused, classes)


def _on_gpu(
    request: PlanRequest,
    book: Book,
    spec: ModelSpec,
    bundle: tuple[str, ...],
    gpu: str,
    largest: int,
    rules: list[StageRule],
    classes: tuple[int, ...],
) -> tuple[list[Option], str]:
    allowed = [set(rule.accelerators) for rule in rules if rule.accelerators is not None]
    if any(gpu not in names for names in allowed):
        return [], "not among the accelerators that the specification allows"
    spots = {rule.spot for rule in rules if rule.spot is not None}
    if len(spots) > 1:
        return [], "one stage wants spot, another on-demand"
    admitted = [frozenset(rule.kinds) for rule in rules if rule.kinds is not None]
    kinds = frozenset.intersection(*admitted) if admitted else None
    if kinds is not None and not any(o.accelerator == gpu and o.kind in kinds for o in request.offers):
        return [], "no offer of it that the specification allows"
    card = book.gpus.get(gpu)
    if card is None:
        return [], f"no facts about {gpu} (memory, peak)"
    made: list[Option] = []
    exactly = next((rule.gpus for rule in rules if rule.gpus is not None), 1)
    why = (
        "no profile, and nothing to estimate from" if exactly == 1 else f"no profile of it on {exactly} GPUs a replica"
    )
    for precision in _precisions(spec, bundle, rules):
        for gpus in _counts(request, book, spec.name, bundle, gpu, precision, largest, rules):
            shapes = {k: request.workload.classes[k].shape for k in classes}
            found = {k: book.predict(spec.name, "+".join(bundle), gpu, s, gpus, precision) for k, s in shapes.items()}
            known = {k: one for k, one in found.items() if one is not None}
            served = {k: one for k, one in known.items() if one.peak_gib <= card.usable_gib + 1e-9}
            if len(served) < len(known):
                least = min(one.peak_gib for k, one in known.items() if k not in served)
                why = f"needs {least:.1f} GiB, {gpu} has {card.usable_gib:.1f} usable"
            if served and not _needless(served, gpus, made):
                spot = spots.copy().pop() if spots else None
                made.append(Option(0, spec.name, bundle, gpu, gpus, precision, served, spot, kinds))
    return made, why


def _needless(served: dict[int, Prediction], gpus: int, made: list[Option]) -> bool:
    """Whether an earlier precision fits too, and is no slower: then the weights need not be squeezed."""
    return any(
        one.gpus == gpus and all(k in one.served and one.served[k].seconds <= p.seconds for k, p in served.items())
        for one in made
    )


def _precisions(spec: ModelSpec, bundle: tuple[str, ...], rules: list[StageRule]) -> Iterator[str]:
    """All stages alike as the model may be held, or every combination of what the stages' rules allow."""
    wished = {rule.stage: rule.precisions for rule in rules if rule.precisions}
    if not wished:
        yield from spec.precisions
        return
    own = spec.precisions[0]
    each = [dict.fromkeys(resolved(name, own) for name in wished.get(stage, spec.precisions)) for stage in bundle]
    for names in islice(product(*each), MOST_COMBINATIONS):
        yield of_bundle(names)


def _counts(
    request: PlanRequest,
    book: Book,
    model: str,
    bundle: tuple[str, ...],
    gpu: str,
    precision: str,
    largest: int,
    rules: list[StageRule],
) -> Iterator[int]:
    """GPUs per replica: one, and powers of two for which every stage (or the bundle itself) has rows; as the rules have it."""
    most = min([request.max_gpus_per_replica, largest] + [rule.max_gpus for rule in rules if rule.max_gpus is not None])
    named = book.gpu_counts(model, "+".join(bundle), gpu, precision)
    formats = of_stages(precision, bundle)
    each = set.intersection(*(book.gpu_counts(model, stage, gpu, name) for stage, name in formats.items()))
    exactly = {rule.gpus for rule in rules if rule.gpus is not None}
    for gpus in sorted({1} | named | each):
        if gpus <= most and gpus & (gpus - 1) == 0 and exactly <= {gpus}:
            yield gpus
