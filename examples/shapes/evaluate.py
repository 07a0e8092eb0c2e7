"""Ask a saved model for the sixty held-out prompts and measure what comes back.

    python evaluate.py --model model --json report.json --sheet sheet.png

Bars: colour and background both right in 95 % of the pictures, shape right in 85 %. The judge (`judge.py`) is checked
first on drawings of the same prompts (all must be right) and on drawings of something else (none may be).
Exit code 1 when a bar is missed.
"""

import argparse
import json
import os
import random
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

import data
import judge
from data import Combo
from judge import Seen

COLOURS_BAR = 0.95
SHAPE_BAR = 0.85
FIRST_SEED = 1000
ZOOM = 4
CAPTION_HEIGHT = 26
SHEET_COLUMNS = 10


@dataclass(frozen=True)
class Result:
    """One prompt, and what the judge saw in its picture."""

    asked: Combo
    seen: Seen

    @property
    def colours_right(self) -> bool:
        """Both the shape's colour and the background are as asked."""
        return (self.seen.colour, self.seen.background) == (self.asked.colour, self.asked.background)

    @property
    def shape_right(self) -> bool:
        """The shape is as asked."""
        return self.seen.shape == self.asked.shape

    @property
    def size_right(self) -> bool:
        """The size class is as asked (reported; no bar on it)."""
        return self.seen.size == self.asked.size

    def as_dict(self) -> dict[str, Any]:
        """For the JSON report."""
        return {
            "prompt": self.asked.prompt(),
            "colours_right": self.colours_right,
            "shape_right": self.shape_right,
            "size_right": self.size_right,
            "seen": {
                "size": self.seen.size,
                "colour": self.seen.colour,
                "shape": self.seen.shape,
                "background": self.seen.background,
            },
            "iou": {fit.shape: round(fit.iou, 3) for fit in self.seen.fits},
        }


def share(results: Sequence[Result], right: Callable[[Result], bool]) -> float:
    """The fraction of results for which `right` holds."""
    return sum(map(right, results)) / len(results)


def judge_drawings(combos: Sequence[Combo], drawn: Sequence[Combo]) -> list[Result]:
    """Judge drawings of `drawn` as if `combos` had been asked."""
    rng = random.Random(FIRST_SEED)
    return [
        Result(asked, judge.look(data.draw(shown, data.random_placement(shown.size, rng))))
        for asked, shown in zip(combos, drawn, strict=True)
    ]


def mismatched(combo: Combo) -> Combo:
    """A combination that differs in colour, shape and background."""
    shape = data.SHAPES[(data.SHAPES.index(combo.shape) + 1) % len(data.SHAPES)]
    background = next(name for name in data.BACKGROUNDS if name not in (combo.background, combo.colour))
    colour = next(name for name in data.COLOURS if name not in (combo.colour, background))
    return Combo(combo.size, colour, shape, background)


def generate(folder: Path, combos: Sequence[Combo], first_seed: int, overrides: dict[str, int]) -> list[Image.Image]:
    """The model's pictures, through diffusers' own FluxPipeline, each from its own fixed seed."""
    import torch
    from diffusers import FluxPipeline

    options = json.loads((folder / "disagctl.json").read_text())["defaults"] | overrides
    pipeline = FluxPipeline.from_pretrained(folder, torch_dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    pictures = []
    for index, combo in enumerate(combos):
        generator = torch.Generator().manual_seed(first_seed + index)
        pictures.append(pipeline(combo.prompt(), generator=generator, **options).images[0])
    return pictures


def contact_sheet(pictures: Sequence[Image.Image], results: Sequence[Result]) -> Image.Image:
    """All the pictures, enlarged, with what was asked and, in red, what was wrong."""
    cell = data.SIDE * ZOOM
    rows = -(-len(pictures) // SHEET_COLUMNS)
    sheet = Image.new("RGB", (SHEET_COLUMNS * (cell + 8), rows * (cell + CAPTION_HEIGHT)), (200, 200, 200))
    pen = ImageDraw.Draw(sheet)
    for index, (picture, result) in enumerate(zip(pictures, results, strict=True)):
        x, y = index % SHEET_COLUMNS * (cell + 8) + 4, index // SHEET_COLUMNS * (cell + CAPTION_HEIGHT)
        sheet.paste(picture.resize((cell, cell), Image.Resampling.NEAREST), (x, y))
        asked, seen = result.asked, result.seen
        pen.text((x, y + cell), f"{asked.size} {asked.colour} {asked.shape}", fill=(0, 0, 0))
        if result.colours_right and result.shape_right:
            pen.text((x, y + cell + 12), f"on {asked.background}", fill=(0, 0, 0))
        else:
            pen.text((x, y + cell + 12), f"saw {seen.colour} {seen.shape}/{seen.background}", fill=(200, 0, 0))
    return sheet


def summarise(results: Sequence[Result], seconds: float) -> dict[str, Any]:
    """Print the failures and the figures; return the figures."""
    for result in results:
        if not (result.colours_right and result.shape_right):
            seen = result.seen
            fits = " ".join(f"{fit.shape} {fit.iou:.2f}" for fit in seen.fits[:2])
            print(
                f"WRONG {result.asked.prompt()}: saw {seen.size} {seen.colour} {seen.shape} on {seen.background}"
                f" ({fits})"
            )
    figures = {
        "prompts": len(results),
        "colours_right": share(results, lambda r: r.colours_right),
        "shape_right": share(results, lambda r: r.shape_right),
        "size_right": share(results, lambda r: r.size_right),
        "all_right": share(results, lambda r: r.colours_right and r.shape_right and r.size_right),
        "seconds_per_picture": round(seconds / len(results), 3),
    }
    for name, value in figures.items():
        print(f"{name}: {value:.1%}" if name.endswith("right") else f"{name}: {value}")
    return figures


def check_judge(combos: Sequence[Combo]) -> dict[str, float]:
    """How the judge does on drawings: of the prompts themselves, and of something else."""
    true = judge_drawings(combos, combos)
    false = judge_drawings(combos, [mismatched(combo) for combo in combos])
    figures = {
        "drawings_right": share(true, lambda r: r.colours_right and r.shape_right and r.size_right),
        "mismatched_colours_right": share(false, lambda r: r.colours_right),
        "mismatched_shape_right": share(false, lambda r: r.shape_right),
    }
    print("judge:", ", ".join(f"{name} {value:.1%}" for name, value in figures.items()), flush=True)
    return figures


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=Path(__file__).with_name("model"))
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--max-sequence-length", type=int, help="other than the model's own default")
    parser.add_argument("--first-seed", type=int, default=FIRST_SEED, help="picture i has seed FIRST_SEED + i")
    parser.add_argument("--json", type=Path, help="write the figures and every result to this file")
    parser.add_argument("--sheet", type=Path, help="write all pictures to this PNG")
    parser.add_argument("--judge-only", action="store_true", help="check the judge on drawings, without a model")
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


def main() -> int:
    """Check the judge, generate, judge, report."""
    args = parse_arguments()
    combos = data.split()[1]
    judged = check_judge(combos)
    if judged["drawings_right"] < 1 or args.judge_only:
        return int(judged["drawings_right"] < 1)

    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    import torch

    torch.set_num_threads(args.threads)
    started = time.monotonic()
    overrides = {"num_inference_steps": args.steps}
    if args.max_sequence_length is not None:
        overrides["max_sequence_length"] = args.max_sequence_length
    pictures = generate(args.model, combos, args.first_seed, overrides)
    seconds = time.monotonic() - started
    results = [Result(combo, judge.look(picture)) for combo, picture in zip(combos, pictures, strict=True)]
    figures = summarise(results, seconds)
    if args.sheet:
        contact_sheet(pictures, results).save(args.sheet)
    if args.json:
        report = {"figures": figures, "judge": judged, "results": [result.as_dict() for result in results]}
        args.json.write_text(json.dumps(report, indent=1) + "\n")
    passed = figures["colours_right"] >= COLOURS_BAR and figures["shape_right"] >= SHAPE_BAR
    print("bars met" if passed else "BARS MISSED")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
