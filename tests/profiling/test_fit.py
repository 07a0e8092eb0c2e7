"""The two-term law, through made-up measurements."""

import numpy as np
import pytest

from disagctl.profiling.fit import Point, fit, nonnegative
from planner.domain import Shape
from tests.flops.repos import large

GRID = [Shape(w, h, 81, steps, guidance=True) for w, h in ((832, 480), (1280, 720)) for steps in (12, 50)]


def points(seconds: list[float], spread: float = 0.0) -> list[Point]:
    return [Point(shape, one, spread) for shape, one in zip(GRID, seconds, strict=True)]


def test_the_law_of_a_denoiser_is_found_again() -> None:
    work = large("wan-14b")
    peak, linear, attention = 0.989, 0.4, 0.7  # PFLOP/s, shares of it
    seconds = []
    for shape in GRID:
        a, b = (one / 1e15 for one in work.stages[1].flops(shape))
        seconds.append(0.5 + 2 * shape.steps * (a / linear + b / attention) / peak)
    law = fit("denoise", points(seconds), work, 989.0)
    assert law.efficiency == {"linear_pflop": pytest.approx(linear), "attention_pflop": pytest.approx(attention)}
    assert law.terms["fixed"] == pytest.approx(0.5)
    assert law.residual < 1e-6
    assert law.error == 0.02


def test_noise_shows_in_the_error() -> None:
    work = large("wan-14b")
    exact = [sum(work.stages[2].flops(shape)) / 1e14 for shape in GRID]
    law = fit(
        "decode", points([one * factor for one, factor in zip(exact, (1.1, 0.9, 1.1, 0.9), strict=True)]), work, None
    )
    assert law.efficiency == {}
    assert 0.05 < law.residual <= law.error < 0.15
    assert fit("decode", points(exact, spread=0.3), work, None).error == 0.3


def test_one_measurement_checks_nothing() -> None:
    law = fit("denoise", [Point(GRID[0], 3.0, 0.0)], large("wan-14b"), 989.0)
    assert law.error == 0.10


@pytest.mark.parametrize("stage", ["encode", "denoise", "decode", "upscale"])
def test_without_flops_voxels_and_passes_will_do(stage: str) -> None:
    law = fit(stage, points([0.25, 0.25, 0.5, 0.5]), None, None)
    assert all(value >= 0 for value in law.terms.values())
    assert law.efficiency == {}


def test_coefficients_are_never_negative() -> None:
    random = np.random.default_rng(3)
    for _ in range(50):
        matrix, target = random.uniform(0, 1, (4, 3)), random.uniform(0, 2, 4)
        solved = nonnegative(matrix, target)
        assert (solved >= 0).all()
        gradient = matrix.T @ (matrix @ solved - target)  # the optimum's conditions (Karush, Kuhn and Tucker)
        assert (gradient > -1e-6).all()
        assert np.abs(gradient[solved > 0]).max(initial=0.0) < 1e-6
