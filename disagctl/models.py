"""What the head and the CLI know of a model without torch: its card, and how much memory its stages will want."""

import subprocess
import sys
from pathlib import Path
from typing import Final

import msgspec

from stages.models.base import ModelCard, ModelError
from stages.models.cards import read_card
from stages.models.synthetic import SyntheticAdapter
from stages.models.weights import configs
from stages.protocol import ModelSource

OURS: Final = frozenset({"synthetic", "modular", "classic"})
DESCRIBE_S: Final = 120.0  # an engine may take long to import

COMPONENT_STAGES: Final = (  # which stages load a component, by the beginning of its folder's name
    ("text_encoder", ("encode",)),
    ("image_encoder", ("encode",)),
    ("transformer_2", ("denoise", "denoise_low")),
    ("transformer", ("denoise", "denoise_high")),
    ("unet", ("denoise",)),
    ("vae", ("encode", "decode")),  # only image-to-video encodes with it; it is small, and this is an upper bound
)


def card_of(source: ModelSource) -> ModelCard:
    """The model's card. Raises ModelError when its configs are not there, or its adapter cannot say."""
    if source.adapter is not None and source.adapter not in OURS:
        return _ask_adapter(source)
    if source.id == "synthetic":
        return SyntheticAdapter().card(source)
    return read_card(configs(source), source.options)


def _ask_adapter(source: ModelSource) -> ModelCard:
    """Another package's adapter is asked in a process of its own: it may import anything."""
    try:
        asked = subprocess.run(  # our own interpreter and module
            [sys.executable, "-m", "stages.models.describe"],
            input=msgspec.json.encode(source),
            capture_output=True,
            timeout=DESCRIBE_S,
            check=False,
        )
    except subprocess.TimeoutExpired as err:
        msg = f"adapter {source.adapter!r} did not describe the model within {DESCRIBE_S:g} s"
        raise ModelError(msg) from err
    if asked.returncode:
        lines = asked.stderr.decode(errors="replace").strip().splitlines()
        raise ModelError(lines[-1] if lines else f"adapter {source.adapter!r} cannot describe the model")
    return msgspec.json.decode(asked.stdout, type=ModelCard)


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
