"""What is asked of a model while it is measured: an ordinary prompt, the model's own defaults, noise for a picture."""

import random
from typing import Any, Final

from planner.domain import Shape
from stages.models import png
from stages.models.base import ModelCard
from stages.parcel import Leaf, Parcel, pack

PROMPT: Final = (
    "A lighthouse on a rocky coast at dusk, waves breaking over the rocks, a small boat with a red sail coming home, "
    "warm light in the windows, low clouds lit from below, painted with attention to the reflections on the wet stone"
)
PICTURE: Final = "input_reference"


def request(card: ModelCard, shape: Shape) -> dict[str, Any]:
    """The request's fields, as the gateway would fill them in."""
    fields = dict(card.defaults) | {
        "prompt": PROMPT,
        "width": shape.width,
        "height": shape.height,
        "num_inference_steps": shape.steps,
        "seed": 0,
    }
    return fields | {"num_frames": shape.frames} if card.modality == "video" else fields


def picture_parcel(width: int, height: int) -> Parcel:
    """What the gateway hands to a model that begins with a picture."""
    noise = random.Random(0).randbytes(width * height * 3)  # noqa: S311
    data = png.picture(width, height, noise, 0)
    return pack({PICTURE: Leaf((len(data),), "uint8", memoryview(data))})
