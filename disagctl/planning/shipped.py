"""The facts that come with disagctl: GPU figures, a dated snapshot of prices, published timings, models' configs."""

from importlib.resources import files
from typing import Final

GPUS: Final = "gpu-specs.csv"
PRICES: Final = "gpu-prices.csv"
PROFILES: Final = "published-profiles.csv"
EGRESS: Final = "egress-prices.csv"
CONFIGS: Final = "model-configs.json"
SNAPSHOT: Final = "2026-09-25"  # the newest row of the prices; each row carries its own date

GAPS: Final = {
    "gcp": "the shipped prices of gcp are without L4, T4 and B200 (what their machines cost is not known here)"
}


def text(name: str) -> str:
    """One of the files above."""
    return files("disagctl.data").joinpath(name).read_text(encoding="utf-8")
