"""What a stage, or a bundle, needs of a GPU's memory; GiB. Weights by format, activations by shape."""

from collections.abc import Sequence

from planner.domain import Prediction, StageCost, StageFacts
from planner.precision import FORMATS, is_quantised, split_precision

RUNTIME_GIB = 0.9  # CUDA context, libraries, allocator slack


def weights_gib(stage: StageFacts, precision: str) -> float:
    """Weights on the GPU: linear layers in the format, the rest as saved; VAEs altogether as saved.

    With offload what is there at once. The host holds all of them then, which no catalog's memory is checked for.
    """
    base, offload = split_precision(precision)
    if stage.kind == "vae" or base not in FORMATS:
        return stage.weights_gib
    share = stage.linear_share if is_quantised(base) else 1.0
    factor = 1.0 - share + share * FORMATS[base].linear_bytes / 2
    there = stage.streamed_gib if offload and stage.streamed_gib is not None else stage.weights_gib
    return there * factor


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
