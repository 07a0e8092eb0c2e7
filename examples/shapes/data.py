"""Coloured shapes: the vocabulary, the drawing function, the prompts and the split into training and held-out.

A picture is one shape on a plain background. What it shows is a `Combo` (size, colour, shape, background); where
exactly the shape sits and how large it is within its size class is a `Placement`, drawn at random.
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

RGB = tuple[int, int, int]

SIDE = 32
SUPERSAMPLE = 4

SHAPES = ("circle", "square", "triangle", "ring", "cross")
COLOURS: dict[str, RGB] = {
    "red": (220, 40, 40),
    "green": (40, 170, 70),
    "blue": (50, 90, 220),
    "yellow": (240, 200, 40),
    "purple": (150, 60, 190),
    "orange": (240, 130, 30),
    "white": (245, 245, 245),
    "black": (20, 20, 20),
}
BACKGROUNDS: dict[str, RGB] = {
    "white": COLOURS["white"],
    "black": COLOURS["black"],
    "gray": (128, 128, 128),
    "pink": (250, 190, 205),
}
PALETTE: dict[str, RGB] = {**COLOURS, **BACKGROUNDS}
# The radius of each size class, and how far the centre may sit from the middle, as fractions of the picture's side.
SIZES: dict[str, tuple[float, float]] = {"small": (0.20, 0.25), "big": (0.30, 0.38)}
JITTER = 0.05

# Proportions of the shapes, as fractions of the radius.
RING_HOLE = 0.55
SQUARE_HALF_SIDE = 0.85
CROSS_HALF_WIDTH = 0.34

TEMPLATES = (
    "a {size} {colour} {shape} on a {background} background",
    "a {size} {colour} {shape} on {background}",
    "{size} {colour} {shape} {background} background",
)
WORDS = tuple(sorted({"a", "on", "background", *SIZES, *COLOURS, *BACKGROUNDS, *SHAPES}))

SPLIT_SEED = 20
HELD_OUT_SHARE = 5  # one combination in five


@dataclass(frozen=True)
class Combo:
    """What a picture shows."""

    size: str
    colour: str
    shape: str
    background: str

    def prompt(self, template: str = TEMPLATES[0]) -> str:
        """The text that asks for this picture."""
        return template.format(size=self.size, colour=self.colour, shape=self.shape, background=self.background)


@dataclass(frozen=True)
class Placement:
    """Where the shape sits, in pixels of the picture."""

    cx: float
    cy: float
    radius: float


def _triangle(place: Placement) -> list[tuple[float, float]]:
    angles = [-math.pi / 2 + 2 * math.pi * k / 3 for k in range(3)]
    return [(place.cx + place.radius * math.cos(a), place.cy + place.radius * math.sin(a)) for a in angles]


def draw_mask(shape: str, place: Placement, side: int = SIDE) -> Image.Image:
    """The shape's coverage of each pixel (0 to 255), anti-aliased by supersampling."""
    k = SUPERSAMPLE
    big = Placement(place.cx * k, place.cy * k, place.radius * k)
    mask = Image.new("L", (side * k, side * k), 0)
    pen = ImageDraw.Draw(mask)

    def box(half_width: float, half_height: float) -> list[float]:
        # PIL's boxes include their far edge, hence the one pixel less.
        return [big.cx - half_width, big.cy - half_height, big.cx + half_width - 1, big.cy + half_height - 1]

    r = big.radius
    if shape == "circle":
        pen.ellipse(box(r, r), fill=255)
    elif shape == "ring":
        pen.ellipse(box(r, r), fill=255)
        pen.ellipse(box(r * RING_HOLE, r * RING_HOLE), fill=0)
    elif shape == "square":
        pen.rectangle(box(r * SQUARE_HALF_SIDE, r * SQUARE_HALF_SIDE), fill=255)
    elif shape == "triangle":
        pen.polygon(_triangle(big), fill=255)
    elif shape == "cross":
        pen.rectangle(box(r, r * CROSS_HALF_WIDTH), fill=255)
        pen.rectangle(box(r * CROSS_HALF_WIDTH, r), fill=255)
    else:
        raise ValueError(f"unknown shape {shape!r}; one of {', '.join(SHAPES)}")
    return mask.resize((side, side), Image.Resampling.BOX)


def draw(combo: Combo, place: Placement) -> Image.Image:
    """The picture of a combination at a placement."""
    picture = Image.new("RGB", (SIDE, SIDE), BACKGROUNDS[combo.background])
    picture.paste(COLOURS[combo.colour], (0, 0), draw_mask(combo.shape, place))
    return picture


def random_placement(size: str, rng: random.Random) -> Placement:
    """A placement within the size class."""
    low, high = SIZES[size]
    cx, cy = (SIDE * (0.5 + rng.uniform(-JITTER, JITTER)) for _ in range(2))
    return Placement(cx, cy, SIDE * rng.uniform(low, high))


def split() -> tuple[list[Combo], list[Combo]]:
    """(training, held-out) combinations: 240 and 60, the same on every call.

    The held-out ones are balanced: six of each (size, shape), two of each (colour, background); and no
    (colour, shape, background) is held out at both sizes.
    """
    pairs = [(colour, back) for colour in COLOURS for back in BACKGROUNDS if colour != back]
    random.Random(SPLIT_SEED).shuffle(pairs)
    training: list[Combo] = []
    held_out: list[Combo] = []
    for size_index, size in enumerate(SIZES):
        for shape_index, shape in enumerate(SHAPES):
            fold = (shape_index + 2 * size_index) % HELD_OUT_SHARE
            for pair_index, (colour, back) in enumerate(pairs):
                chosen = held_out if pair_index % HELD_OUT_SHARE == fold else training
                chosen.append(Combo(size, colour, shape, back))
    return training, held_out


def held_out_prompts() -> list[str]:
    """The sixty prompts whose combinations training never sees."""
    return [combo.prompt() for combo in split()[1]]


def draw_pool(count: int, seed: int, combos: Sequence[Combo]) -> tuple[NDArray[np.uint8], list[str]]:
    """`count` random pictures of the given combinations as (count, side, side, 3) bytes, and their prompts."""
    rng = random.Random(seed)
    pictures = np.empty((count, SIDE, SIDE, 3), dtype=np.uint8)
    prompts = []
    for index in range(count):
        combo = rng.choice(combos)
        pictures[index] = np.asarray(draw(combo, random_placement(combo.size, rng)))
        prompts.append(combo.prompt(rng.choice(TEMPLATES)))
    return pictures, prompts
