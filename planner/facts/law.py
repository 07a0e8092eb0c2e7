"""From the shapes that were measured to one that was not: same model, stage, GPU, GPUs and precision."""

import math
from collections.abc import Sequence

import numpy as np

from planner.domain import Profile, Shape, StageCost, StageFacts

ONE_TERM_BAND = (
    0.15  # one factor for linear and attention work: 2–12 % on held-out shapes, to 15 % with a short fixed part
)
TWO_TERM_BAND = 0.10
BLIND_BAND = 0.30  # without FLOPs: time by pixels and steps


def carry(rows: Sequence[Profile], facts: StageFacts | None, shape: Shape, stage: str) -> tuple[float, float, str]:
    """(seconds, band, how) for ``shape`` from ``rows`` of other shapes."""
    target = _work(facts, shape)
    known = [(_work(facts, row.shape), row.seconds) for row in rows]
    fit = [(work, seconds) for work, seconds in known if work is not None]
    if target is not None and fit:
        if (
            len(fit) > 1
            and (factors := _two_terms([work for work, _ in fit], [seconds for _, seconds in fit])) is not None
        ):
            return float(factors[0] * target[0] + factors[1] * target[1]), TWO_TERM_BAND, "two-term law"
        work, seconds = min(fit, key=lambda pair: abs(np.log(sum(pair[0]) / sum(target))))
        return seconds * sum(target) / sum(work), ONE_TERM_BAND, "carried by FLOPs"
    row = min(rows, key=lambda one: _distance(one.shape, shape))
    return row.seconds * _blind(stage, shape) / _blind(stage, row.shape), BLIND_BAND, "carried by pixels and steps"


def _two_terms(works: list[tuple[float, float]], seconds: list[float]) -> np.ndarray | None:
    """Factors of linear and attention work, least squares of relative error; None unless both come out positive."""
    matrix = np.array(works) / np.array(seconds)[:, None]
    if np.linalg.matrix_rank(matrix, tol=1e-6 * float(np.abs(matrix).max())) < 2:
        return None
    factors = np.linalg.lstsq(matrix, np.ones(len(seconds)), rcond=None)[0]
    return factors if bool((factors > 0).all()) else None


def _work(facts: StageFacts | None, shape: Shape) -> tuple[float, float] | None:
    """(linear, attention) PFLOP of all passes; a VAE's work is its voxels, an encoder's its one pass."""
    cost = _cost(facts, shape) if facts else None
    if facts is None or cost is None:
        return None
    if facts.kind == "transformer":
        return (cost.linear_pflop * cost.passes, cost.attention_pflop * cost.passes) if cost.linear_pflop else None
    if facts.kind == "vae":
        return (cost.megavoxels, 0.0) if cost.megavoxels else None
    return (cost.linear_pflop, cost.attention_pflop) if cost.linear_pflop else (1.0, 0.0)


def _cost(facts: StageFacts, shape: Shape) -> StageCost | None:
    """The exact shape's, else the same size's with its passes scaled to these steps."""
    size = (shape.width, shape.height, shape.frames)
    for cost in facts.costs:
        if cost.shape == shape:
            return cost
    for cost in facts.costs:
        if (cost.shape.width, cost.shape.height, cost.shape.frames) == size:
            passes = (
                cost.passes * shape.steps / max(cost.shape.steps, 1) if facts.kind == "transformer" else cost.passes
            )
            return StageCost(shape, cost.linear_pflop, cost.attention_pflop, max(round(passes), 1), cost.megavoxels)
    return None


def _voxels(shape: Shape) -> float:
    return float(shape.width * shape.height * shape.frames)


def _blind(stage: str, shape: Shape) -> float:
    """Relative work by name alone: encoders read text, VAEs follow voxels, transformers steps and (mostly linear) voxels."""
    if stage.startswith(("encode", "text")):
        return 1.0
    if stage.startswith(("decode", "vae", "upscale")):
        return _voxels(shape)
    return float(shape.steps * _voxels(shape) ** 1.2)


def _distance(one: Shape, other: Shape) -> float:
    return abs(math.log(_voxels(one) / _voxels(other))) + 0.5 * abs(math.log(one.steps / other.steps))
