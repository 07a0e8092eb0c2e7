"""What a picture shows, measured without any learned model: its two colours, and the shape that fits best.

The judge knows the palette and the five shapes, and nothing of what was asked. Background: the median of the border.
Shape's pixels: those more than half as far from the background as the shape's own colour is. Shape: every candidate is
drawn at the same grid of centres and radii, and the best intersection over union wins.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

import data

MARGIN = 8  # room around the picture, so that candidates may be moved off its middle
CANVAS = data.SIDE + 2 * MARGIN
SUBPIXEL_OFFSETS = (0.0, 0.25, 0.5, 0.75)
RADII = np.arange(3.0, 15.01, 0.25)
SHIFTS = range(-4, 5)
MINIMUM_CONTRAST = 40.0  # RGB distance below which a pixel is background
MINIMUM_PIXELS = 12

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Fit:
    """A candidate shape at its best."""

    shape: str
    radius: float
    iou: float


@dataclass(frozen=True)
class Seen:
    """What the judge saw. `fits` is empty when there is no shape; otherwise all five, best first."""

    colour: str
    background: str
    fits: tuple[Fit, ...]

    @property
    def shape(self) -> str:
        """The best-fitting shape."""
        return self.fits[0].shape if self.fits else "none"

    @property
    def size(self) -> str:
        """The size class whose range of radii the best fit's is in, or nearest to."""
        if not self.fits:
            return "none"
        share = self.fits[0].radius / data.SIDE
        return min(data.SIZES, key=lambda size: max(data.SIZES[size][0] - share, share - data.SIZES[size][1]))


def nearest_colour(rgb: NDArray[np.float64]) -> str:
    """The palette colour nearest to an RGB value."""
    return min(data.PALETTE, key=lambda name: float(np.linalg.norm(rgb - np.array(data.PALETTE[name]))))


def segment(picture: Image.Image) -> tuple[Mask, NDArray[np.float64], NDArray[np.float64]]:
    """(mask of the shape's pixels, shape's colour, background's colour)."""
    pixels = np.asarray(picture.convert("RGB"), dtype=np.float64)
    border = np.concatenate([pixels[0], pixels[-1], pixels[1:-1, 0], pixels[1:-1, -1]])
    background = np.median(border, axis=0)
    distance = np.linalg.norm(pixels - background, axis=-1)
    clear = distance > max(MINIMUM_CONTRAST, 0.5 * float(np.percentile(distance, 99)))
    if not clear.any():
        return clear, background, background
    colour = np.median(pixels[clear], axis=0)
    return distance > 0.5 * np.linalg.norm(colour - background), colour, background


@cache
def _templates() -> tuple[NDArray[np.float32], list[tuple[str, float]]]:
    """Every candidate drawn about the middle of the canvas, one a row, and what each row is."""
    rows = []
    names = []
    for shape in data.SHAPES:
        for radius in RADII:
            for dx in SUBPIXEL_OFFSETS:
                for dy in SUBPIXEL_OFFSETS:
                    place = data.Placement(CANVAS / 2 + dx, CANVAS / 2 + dy, float(radius))
                    rows.append(np.asarray(data.draw_mask(shape, place, CANVAS)).ravel() > 127)
                    names.append((shape, float(radius)))
    return np.array(rows, dtype=np.float32), names


def fit_shapes(mask: Mask) -> tuple[Fit, ...]:
    """The best fit of each shape to a mask, best first."""
    templates, names = _templates()
    areas = templates.sum(axis=1)
    rows, columns = np.nonzero(mask)
    middle = [round(float(ax.min() + ax.max()) / 2 - data.SIDE / 2) for ax in (rows, columns)]
    canvas = np.pad(mask, MARGIN).astype(np.float32)
    best: dict[str, Fit] = {}
    for down in SHIFTS:
        for right in SHIFTS:
            moved = np.roll(canvas, (-middle[0] + down, -middle[1] + right), axis=(0, 1)).ravel()
            overlap = templates @ moved
            iou = overlap / (areas + moved.sum() - overlap)
            for index in _best_rows(iou):
                shape, radius = names[index]
                if shape not in best or iou[index] > best[shape].iou:
                    best[shape] = Fit(shape, radius, float(iou[index]))
    return tuple(sorted(best.values(), key=lambda fit: -fit.iou))


def _best_rows(iou: NDArray[np.float32]) -> list[int]:
    """The best row of each shape: the templates' rows are grouped by shape, equally many of each."""
    grouped = iou.reshape(len(data.SHAPES), -1)
    return [group * grouped.shape[1] + int(best) for group, best in enumerate(grouped.argmax(axis=1))]


def look(picture: Image.Image) -> Seen:
    """What a picture shows."""
    mask, colour, background = segment(picture)
    fits = fit_shapes(mask) if mask.sum() >= MINIMUM_PIXELS else ()
    return Seen(nearest_colour(colour), nearest_colour(background), fits)
