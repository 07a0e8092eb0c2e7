"""How a stage's weights may be held: the one list of what a spec may ask for, a worker runs and the planner plans.

A *precision* is the name of a format, with ``+offload`` behind it where the weights stay in the host's memory and are
brought to the GPU block by block. ``auto``: as the weights were saved. A worker holds the denoiser's and the text
encoders' linear layers in the format; everything else of the stage, and VAEs altogether, stay as they were saved.
"""

from collections.abc import Sequence
from typing import Final

import msgspec

AUTO: Final = "auto"
OFFLOAD: Final = "+offload"


class Format(msgspec.Struct, frozen=True):
    """``linear_bytes``: of a linear layer's weight, scales included. ``package``: what holds weights so, if torch does not.

    ``gpu``: the package computes with it on GPUs only. ``offload``: such weights can be kept in the host's memory.
    """

    linear_bytes: float
    package: str = ""
    gpu: bool = False
    offload: bool = True


FORMATS: Final = {
    "bf16": Format(2.0),
    "fp16": Format(2.0),
    "fp32": Format(4.0),
    "int8": Format(1.0, "torchao"),  # a scale an output channel: nothing beside the weights
    "fp8": Format(1.0, "torchao"),
    "nf4": Format(0.5 + 4 / 64, "bitsandbytes", gpu=True, offload=False),  # a float32 scale for each 64 weights
}
RUNNABLE: Final = tuple(FORMATS) + tuple(name + OFFLOAD for name, one in FORMATS.items() if one.offload)
FP8_CAPABILITY: Final = (8, 9)  # CUDA compute capability: the first with units that read it


def split_precision(precision: str) -> tuple[str, bool]:
    """``fp8+offload`` → (``fp8``, True)."""
    return precision.removesuffix(OFFLOAD), precision.endswith(OFFLOAD)


def resolved(precision: str, own: str) -> str:
    """With ``auto`` replaced by the model's own format."""
    base, offload = split_precision(precision)
    return (own if base == AUTO else base) + (OFFLOAD if offload else "")


def of_stages(precision: str, stages: Sequence[str]) -> dict[str, str]:
    """Each stage's name. A bundle's precision is one name for all of its stages, or theirs in order: ``bf16/int8``."""
    names = precision.split("/")
    return dict(zip(stages, names * len(stages) if len(names) == 1 else names, strict=False))


def of_bundle(names: Sequence[str]) -> str:
    """The other way round."""
    return names[0] if len(set(names)) == 1 else "/".join(names)


def is_quantised(precision: str) -> bool:
    """Whether the format is one that torch's own linear layers do not compute with."""
    found = FORMATS.get(split_precision(precision)[0])
    return found is not None and bool(found.package)


def unfit(precision: str, stage: str) -> str:
    """Why no worker could ever hold the stage so; "" when one can."""
    base, offload = split_precision(precision)
    if base != AUTO and base not in FORMATS:
        return f"precision {base!r} is not one of {AUTO}, {', '.join(FORMATS)}"
    if offload and base != AUTO and not FORMATS[base].offload:
        return f"{base} weights cannot be offloaded"
    if stage == "decode" and is_quantised(precision):
        return f"{stage} is a VAE, which is not quantised"
    return ""
