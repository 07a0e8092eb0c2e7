"""What the head and the CLI know of a model without torch: its card, and how much memory its stages will want."""

from pathlib import Path
from typing import Final

from stages.models.base import ModelCard
from stages.models.cards import read_card
from stages.models.synthetic import SyntheticAdapter
from stages.models.weights import configs
from stages.protocol import ModelSource

COMPONENT_STAGES: Final = (  # which stages load a component, by the beginning of its folder's name
    ("text_encoder", ("encode",)),
    ("image_encoder", ("encode",)),
    ("transformer", ("denoise",)),
    ("unet", ("denoise",)),
    ("vae", ("encode", "decode")),  # only image-to-video encodes with it; it is small, and this is an upper bound
)


def card_of(source: ModelSource) -> ModelCard:
    """The model's card. Raises ModelError when its configs are not there."""
    if source.id == "synthetic":
        return SyntheticAdapter().card(source)
    return read_card(configs(source))


def weight_bytes(source: ModelSource) -> dict[str, int]:
    """Bytes of safetensors per stage of a local model; empty for models whose weights are not here yet."""
    folder = Path(source.id)
    if source.id == "synthetic" or not folder.is_absolute():
        return {}
    totals: dict[str, int] = {}
    for file in folder.glob("*/*.safetensors"):
        stages = next((s for prefix, s in COMPONENT_STAGES if file.parent.name.startswith(prefix)), ())
        for stage in stages:
            totals[stage] = totals.get(stage, 0) + file.stat().st_size
    return totals
