"""What a stage, or a bundle, needs of a GPU's memory; GiB. Weights by format, activations by shape."""

from collections.abc import Sequence

from planner.domain import Prediction, StageCost, StageFacts

# Bytes per parameter over bf16's two; scales and the layers left in bf16 included (torchao and bitsandbytes documentation).
WEIGHT_FACTORS = {"bf16": 1.0, "fp16": 1.0, "fp32": 2.0, "fp8": 0.52, "int8": 0.53, "nf4": 0.31}
RUNTIME_GIB = 0.9  # CUDA context, libraries, allocator slack
OFFLOAD_BLOCKS = 0.08  # share of the weights resident when blocks are streamed from the host: two blocks of some thirty


def split_precision(precision: str) -> tuple[str, bool]:
    """``fp8+offload`` → (``fp8``, True)."""
    base, _, rest = precision.partition("+")
    return base, "offload" in rest


def weights_gib(stage: StageFacts, precision: str) -> float:
    """Resident weights. Text encoders and VAEs are not quantised: only transformers are."""
    base, offload = split_precision(precision)
    factor = WEIGHT_FACTORS.get(base, 1.0) if stage.kind == "transformer" else 1.0
    return stage.weights_gib * factor * (OFFLOAD_BLOCKS if offload and stage.kind == "transformer" else 1.0)


def peak_gib(stage: StageFacts, cost: StageCost, precision: str) -> float:
    """Weights, activations and the runtime's own."""
    return weights_gib(stage, precision) + cost.activation_gib + RUNTIME_GIB


def bundle_gib(parts: Sequence[Prediction]) -> tuple[float, float | None]:
    """(peak, weights) of stages that share a GPU: Σ weights + max activations; Σ peak where weights are unknown.

    A part whose peak is unknown (0) adds nothing.
    """
    weights = [part.weights_gib for part in parts]
    known = [weight for weight in weights if weight is not None]
    if len(known) < len(parts):
        return sum(part.peak_gib for part in parts), None
    active = max(max(part.peak_gib - weight, 0.0) for part, weight in zip(parts, known, strict=True))
    return sum(known) + active, sum(known)
