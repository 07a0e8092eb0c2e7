"""What is measured: ``832x480x81@50`` on the command line, or a grid made from the model's defaults."""

import re
from collections.abc import Iterable
from typing import Final

from disagctl.errors import UsageError
from planner.domain import Shape
from stages.models.base import ModelCard

_TEXT: Final = re.compile(r"(\d{1,5})[x×](\d{1,5})(?:[x×](\d{1,5}))?(?:@(\d{1,4}))?", re.ASCII)
_FEWER: Final = 4  # the second step count is this part of the model's own


def parse_shape(text: str, steps: Iterable[int], frames: int, *, guidance: bool) -> list[Shape]:
    """``WxH[xFRAMES][@STEPS]``; without steps each of ``steps``. Raises UsageError."""
    match = _TEXT.fullmatch(text.strip())
    if match is None:
        raise UsageError(
            f"{text!r} is not a shape",
            why="a shape is WxH, WxHxFRAMES or either with @STEPS",
            next="such as 832x480x81@50",
        )
    width, height, given, count = (int(part) if part else None for part in match.groups())
    if not width or not height or given == 0 or count == 0:
        raise UsageError(f"{text!r} is not a shape", why="none of its numbers may be 0")
    return [Shape(width, height, given or frames, n, guidance) for n in ([count] if count else steps)]


def shapes_for(card: ModelCard, asked: Iterable[str], *, guidance: bool) -> tuple[Shape, ...]:
    """The shapes asked for, else two resolutions × two step counts around the model's defaults; small ones first."""
    defaults = card.defaults
    steps = int(defaults.get("num_inference_steps") or 1)
    counts = sorted({max(steps // _FEWER, 1), steps if steps > 1 else 2})
    frames = int(defaults.get("num_frames") or 1) if card.modality == "video" else 1
    texts = list(asked)
    if texts:
        shapes = [shape for text in texts for shape in parse_shape(text, counts, frames, guidance=guidance)]
    else:
        width, height = int(defaults.get("width") or 512), int(defaults.get("height") or 512)
        sizes = {(width, height), _smaller(width, height, card.size_multiple)}
        shapes = [Shape(w, h, frames, count, guidance) for w, h in sizes for count in counts]
    return tuple(sorted(set(shapes), key=lambda s: (s.width * s.height * s.frames, s.width, s.steps)))


def _smaller(width: int, height: int, multiple: int) -> tuple[int, int]:
    """Half as long along each edge; larger instead where the model's own size is as small as it gets."""
    halves = max(width // 2 // multiple, 1) * multiple, max(height // 2 // multiple, 1) * multiple
    return halves if halves != (width, height) else (2 * width, 2 * height)
