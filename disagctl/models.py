"""What the head and the CLI know of a model without torch: its card, and how much memory its stages will want."""

from pathlib import Path
from typing import Final

from stages.models.base import ModelCard
from stages.models.cards import read_card
from stages.models.synthetic import SyntheticAdapter
from stages.models.weights import configs
from stages.protocol import ModelSource

COMPONENT_STAGES: Final = (  # which stage loads a component, by its folder's name
    ("text_encoder", "encode"),
    ("image_encoder", "encode"),
    ("transformer", "denoise"),
    ("unet", "denoise"),
    ("vae", "decode"),
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
        stage = next((s for prefix, s in COMPONENT_STAGES if file.parent.name.startswith(prefix)), None)
        if stage is not None:
            totals[stage] = totals.get(stage, 0) + file.stat().st_size
    return totals
