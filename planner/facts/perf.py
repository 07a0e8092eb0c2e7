"""Seconds of a stage on a GPU. Measured before published before estimated, and across shapes before across anything else.

The law: t = c·megavoxels + passes·(F_lin/e_lin + F_att/e_att)/peak. Rows of the same (model, stage, GPU, GPUs, precision)
fix its factors for other shapes; without rows the factors are the architecture's, with a wide band. Factors are never carried
from one type of GPU to another: that errs by 92–135 % (H100 to H20 and L20).
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping

import msgspec

from planner.domain import Gpu, ModelFacts, Prediction, Profile, Shape, StageCost, StageFacts
from planner.facts import memory, roofline
from planner.facts.law import carry
from planner.precision import RUNNABLE, is_quantised, of_stages, split_precision

RANK = {"measured": 0, "published": 1, "estimated": 2}
BANDS = {"measured": 0.05, "published": 0.10, "estimated": 0.40}
NATIVE = ("bf16", "fp16", "fp32")  # what torch computes in by itself; the first is what quantised weights compute in
QUANTISED_BAND = 0.25  # added to a time that was not measured with quantised weights
OFFLOAD_BAND = 0.15  # likewise, for streaming them
LOAD_GIB_PER_S = 1.0
LEAST_LOAD_S = 10.0

_Key = tuple[str, str, str, int, str]


class Book:
    """All that is known of service times, indexed. Predictions are cached."""

    def __init__(self, profiles: Iterable[Profile], facts: Iterable[ModelFacts], gpus: Iterable[Gpu]) -> None:
        self.gpus: Mapping[str, Gpu] = {gpu.name: gpu for gpu in gpus}
        self.facts: Mapping[str, ModelFacts] = {fact.model: fact for fact in facts}
        self._rows: dict[_Key, list[Profile]] = defaultdict(list)
        self._cache: dict[tuple[_Key, Shape], Prediction | None] = {}
        for row in profiles:
            if row.batch == 1:
                self._rows[row.model, row.stage, row.gpu, row.gpus, row.precision].append(row)

    def stages(self, model: str) -> tuple[str, ...]:
        """The model's stages in the order in which they run: the facts' order, else the usual one, else the rows'."""
        if model in self.facts:
            return tuple(stage.stage for stage in self.facts[model].stages)
        seen: dict[str, None] = {}
        for name, stage, *_ in self._rows:
            if name == model:
                seen.update(dict.fromkeys(stage.split("+")))
        usual = {"encode": 0, "denoise": 1, "denoise_high": 1, "denoise_low": 2, "decode": 3, "upscale": 4}
        order = list(seen)
        return tuple(sorted(order, key=lambda stage: (usual.get(stage, 3), order.index(stage))))

    def bundles(self, model: str) -> set[str]:
        """Bundles that rows name."""
        return {stage for name, stage, *_ in self._rows if name == model and "+" in stage}

    def gpu_counts(self, model: str, stage: str, gpu: str, precision: str) -> set[int]:
        """GPUs per replica for which there are rows."""
        return {key[3] for key in self._rows if (*key[:3], key[4]) == (model, stage, gpu, precision)}

    def predict(
        self, model: str, stage: str, gpu: str, shape: Shape, gpus: int = 1, precision: str = "bf16"
    ) -> Prediction | None:
        """One stage, or a bundle ``a+b`` (its own rows, else its parts one after the other). None: nothing to go by."""
        key = ((model, stage, gpu, gpus, precision), shape)
        if key not in self._cache:
            self._cache[key] = self._predict(*key)
        return self._cache[key]

    def _predict(self, key: _Key, shape: Shape) -> Prediction | None:
        model, stage, gpu, gpus, precision = key
        found = self._from_rows(key, shape)
        if found is None and "+" in stage:
            each = of_stages(precision, stage.split("+"))
            parts = [self.predict(model, part, gpu, shape, gpus, name) for part, name in each.items()]
            return join([part for part in parts if part is not None]) if all(parts) else None
        if found is None and precision in NATIVE:
            found = self._estimated(model, stage, gpu, shape, precision) if gpus == 1 else None
        return found if found is not None or precision in NATIVE else self._derived(key, shape)

    def _from_rows(self, key: _Key, shape: Shape) -> Prediction | None:
        rows = self._rows.get(key, [])
        if not rows:
            return None
        same = sorted(
            (row for row in rows if _same(row.shape, shape)), key=lambda row: (RANK[row.source], row.shape != shape)
        )
        if same:
            band = same[0].error if same[0].error is not None else BANDS[same[0].source]
            return _as_prediction(same[0], same[0].seconds, band, same[0].origin)
        if "+" in key[1]:
            return None
        rank = min(RANK[row.source] for row in rows)
        basis = [row for row in rows if RANK[row.source] == rank]
        facts = self._stage_facts(key[0], key[1])
        seconds, error, how = carry(basis, facts, shape, key[1])
        nearest = min(basis, key=lambda row: abs(_voxels(row.shape) - _voxels(shape)))
        peak = self._carried_peak(nearest, facts, shape)
        band = max(error, nearest.error or BANDS[nearest.source])
        return msgspec.structs.replace(
            _as_prediction(nearest, seconds, band, f"{how} from {nearest.origin}"), peak_gib=peak
        )

    def _carried_peak(self, row: Profile, facts: StageFacts | None, shape: Shape) -> float:
        """Activations follow the voxels (a bound: attention here is memory-efficient)."""
        weights = row.weights_gib if row.weights_gib is not None else (facts.weights_gib if facts else 0.0)
        ratio = _voxels(shape) / _voxels(row.shape)
        return row.peak_gib if ratio <= 1 else min(weights, row.peak_gib) + max(row.peak_gib - weights, 0.0) * ratio

    def _stage_facts(self, model: str, stage: str) -> StageFacts | None:
        fact = self.facts.get(model)
        return next((one for one in fact.stages if one.stage == stage), None) if fact else None

    def _estimated(self, model: str, stage: str, gpu: str, shape: Shape, precision: str) -> Prediction | None:
        facts, card = self._stage_facts(model, stage), self.gpus.get(gpu)
        cost = cost_of(facts, shape) if facts else None
        if facts is None or card is None or cost is None or (precision == "bf16" and not card.bf16):
            return None
        return Prediction(
            seconds=roofline.seconds(facts, cost, card),
            peak_gib=memory.peak_gib(facts, cost, precision),
            source="estimated",
            error=roofline.BANDS.get(facts.kind, roofline.BAND),
            origin=f"roofline of {self.facts[model].origin or model}: nobody has profiled {stage} on {gpu}",
            weights_gib=memory.weights_gib(facts, precision),
            load_s=max(facts.weights_gib / LOAD_GIB_PER_S, LEAST_LOAD_S),
        )

    def _derived(self, key: _Key, shape: Shape) -> Prediction | None:
        """Nobody has timed the stage with its weights held so: the time with 16-bit weights on the GPU, and a wider band.

        Only for what a worker runs. Memory follows from the format; how much faster or slower it is, nobody knows.
        """
        model, stage, gpu, gpus, precision = key
        facts, card = self._stage_facts(model, stage), self.gpus.get(gpu)
        cost = cost_of(facts, shape) if facts else None
        base, offload = split_precision(precision)
        if facts is None or card is None or cost is None or precision not in RUNNABLE:
            return None
        if base == "fp8" and not card.fp8_tflops:
            return None
        native = self.predict(model, stage, gpu, shape, gpus, base if base in NATIVE else NATIVE[0])
        if native is None:
            return None
        weights = memory.weights_gib(facts, precision)
        held = native.weights_gib if native.peak_gib else None
        rest = None if held is None else max(native.peak_gib - held, 0.0)
        return msgspec.structs.replace(
            native,
            seconds=roofline.offloaded(native.seconds, facts, cost, precision) if offload else native.seconds,
            peak_gib=memory.peak_gib(facts, cost, precision) if rest is None else weights + rest,
            source="estimated",
            error=native.error + (QUANTISED_BAND if is_quantised(base) else 0.0) + (OFFLOAD_BAND if offload else 0.0),
            origin=f"nobody has profiled {precision}, taken from 16 bits on the GPU: {native.origin}",
            weights_gib=weights,
        )


def cost_of(facts: StageFacts, shape: Shape) -> StageCost | None:
    """The stage's work for a shape, if the facts have it (guidance must agree: it doubles the passes)."""
    return next((cost for cost in facts.costs if cost.shape == shape), None)


def join(parts: list[Prediction]) -> Prediction:
    """Stages one after the other on one GPU."""
    peak, weights = memory.bundle_gib(parts)
    seconds = sum(part.seconds for part in parts)
    loads = [part.load_s for part in parts if part.load_s is not None]
    return Prediction(
        seconds=seconds,
        peak_gib=peak,
        source=max((part.source for part in parts), key=RANK.__getitem__),
        error=sum(part.error * part.seconds for part in parts) / seconds,
        origin="; ".join(dict.fromkeys(part.origin for part in parts)),
        weights_gib=weights,
        load_s=sum(loads) if loads else None,
    )


def _voxels(shape: Shape) -> int:
    return shape.width * shape.height * shape.frames


def _same(one: Shape, other: Shape) -> bool:
    """Rows need not say whether guidance was on: size, frames and steps decide."""
    return (one.width, one.height, one.frames, one.steps) == (other.width, other.height, other.frames, other.steps)


def _as_prediction(row: Profile, seconds: float, error: float, origin: str) -> Prediction:
    load = row.load_s
    if load is None and row.weights_gib is not None:
        load = max(row.weights_gib / LOAD_GIB_PER_S, LEAST_LOAD_S)
    return Prediction(seconds, row.peak_gib, row.source, error, origin, row.weights_gib, load)
