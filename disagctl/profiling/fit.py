"""The two-term law, t = c·voxels + passes·(F_lin/e_lin + F_att/e_att)/peak, through what was measured.

Each stage has its part of the law, and a fixed part beside it: the denoiser's two terms, the VAE's voxels, the text
encoder's constant. Coefficients are never negative; errors are relative, so that short times count as much as long ones.
"""

from collections.abc import Sequence
from itertools import combinations
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt

from planner.domain import Shape
from planner.facts.work import PFLOP, ModelWork

LEAST_ERROR: Final = 0.02  # nobody measures better than that
UNCHECKED: Final = 0.10  # as many unknowns as measurements: nothing was left to check the law with
_BETTER: Final = 1e-6


class Point(msgspec.Struct, frozen=True):
    """One measurement: the median of the repeats, and their median deviation over it."""

    shape: Shape
    seconds: float
    spread: float


class Law(msgspec.Struct, frozen=True):
    """``terms``: seconds for one of each; names tell of what. ``residual``: the largest, relative; ``error``: what rows say.

    ``efficiency``: share of the GPU's dense peak that each term reaches, where the peak and the FLOPs are known.
    """

    stage: str
    terms: dict[str, float]
    residual: float
    error: float
    efficiency: dict[str, float]


def fit(stage: str, points: Sequence[Point], work: ModelWork | None, peak_tflops: float | None) -> Law:
    """Fit one stage's part of the law to its measurements."""
    names, rows = _features(stage, [point.shape for point in points], work)
    times = np.array([point.seconds for point in points])
    factors = nonnegative(np.array(rows) / times[:, None], np.ones(len(points)))
    residual = float(np.abs(np.array(rows) @ factors / times - 1).max())
    used = int((factors > 0).sum())
    floor = LEAST_ERROR if len(points) > used else UNCHECKED
    terms = {name: float(factor) for name, factor in zip(names, factors, strict=True)}
    peak = peak_tflops / 1000 if peak_tflops else None  # PFLOP/s
    shares = {name: 1 / (terms[name] * peak) for name in names if "pflop" in name and peak and terms[name] > 0}
    return Law(stage, terms, residual, max(floor, residual, *(point.spread for point in points)), shares)


def _features(stage: str, shapes: Sequence[Shape], work: ModelWork | None) -> tuple[list[str], list[list[float]]]:
    found = next((one for one in work.stages if one.stage == stage), None) if work else None
    if work is not None and found is not None and found.kind == "transformer":
        rows = []
        for shape in shapes:
            linear, attention = found.flops(shape)
            passes = work.passes(found, shape)
            rows.append([1.0, passes * linear / PFLOP, passes * attention / PFLOP])
        return ["fixed", "linear_pflop", "attention_pflop"], rows
    voxels = [shape.width * shape.height * shape.frames / 1e6 for shape in shapes]
    if stage == "encode" or (found is not None and found.kind == "text"):
        return ["fixed"], [[1.0] for _ in shapes]
    if stage == "decode" or (found is not None and found.kind == "vae"):
        return ["fixed", "megavoxels"], [[1.0, one] for one in voxels]
    counts = [shape.steps * (2 if shape.guidance else 1) for shape in shapes]
    names = ["fixed", "passes", "passes_megavoxels", "passes_megavoxels_squared"]
    return names, [[1.0, n, n * one, n * one * one] for n, one in zip(counts, voxels, strict=True)]


def nonnegative(matrix: npt.NDArray[np.float64], target: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Least squares with no negative coefficient, by trying every set of columns (there are four at most).

    Of sets that fit equally well the smallest: a term that is not needed is zero.
    """
    columns = matrix.shape[1]
    best, least = np.zeros(columns), float(np.square(target).sum())
    for size in range(1, min(matrix.shape) + 1):
        for chosen in combinations(range(columns), size):
            part = matrix[:, chosen]
            scale = np.abs(part).max(axis=0)
            if not (scale > 0).all():
                continue
            solved = np.linalg.lstsq(part / scale, target, rcond=None)[0] / scale
            error = float(np.square(part @ solved - target).sum())
            if (solved >= 0).all() and error < least - _BETTER:
                best, least = np.zeros(columns), error
                best[list(chosen)] = solved
    return best
