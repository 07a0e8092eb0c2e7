"""Which dtype a component's weights are loaded in."""

import json
from pathlib import Path
from typing import Any, Final

import torch

from stages.models.base import ModelError

_MAX_HEADER_BYTES: Final = 64 << 20
_SAVED: Final = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
_HALVES: Final = (torch.float16, torch.bfloat16)
# Wan's VAE loses detail in half precision; its authors and diffusers' documentation keep it in float32.
_KEEP_FLOAT32: Final = frozenset({"AutoencoderKLWan"})


def component_dtype(folder: Path, class_name: str, wanted: str, device: torch.device) -> torch.dtype:
    """The dtype for the component in ``folder``.

    ``wanted`` is a torch dtype's name, or ``auto``: as the weights were saved; on the CPU float32 in place of half
    precision, which it computes slowly or not at all. Raises ModelError for an unknown name.
    """
    saved = saved_dtype(folder)
    if wanted == "auto":
        dtype = saved or torch.float32
        return torch.float32 if device.type == "cpu" and dtype in _HALVES else dtype
    chosen = getattr(torch, wanted, None)
    if not isinstance(chosen, torch.dtype) or not chosen.is_floating_point:
        msg = f"dtype {wanted!r} is not one of auto, float32, bfloat16, float16"
        raise ModelError(msg)
    if class_name in _KEEP_FLOAT32 and saved == torch.float32 and chosen in _HALVES:
        return torch.float32
    return chosen


def saved_dtype(folder: Path) -> torch.dtype | None:
    """The dtype that most bytes of the component's safetensors are in; None without weights or for a quantised one."""
    totals: dict[str, int] = {}
    for path in sorted(folder.glob("*.safetensors")):
        for name, entry in _header(path).items():
            if name != "__metadata__":
                begin, end = entry["data_offsets"]
                totals[entry["dtype"]] = totals.get(entry["dtype"], 0) + end - begin
    return _SAVED.get(max(totals, key=lambda name: totals[name])) if totals else None


def _header(path: Path) -> dict[str, dict[str, Any]]:
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        if size > _MAX_HEADER_BYTES:
            msg = f"{path} is not a safetensors file"
            raise ModelError(msg)
        try:
            header: dict[str, dict[str, Any]] = json.loads(file.read(size))
        except ValueError as err:
            msg = f"{path} is not a safetensors file"
            raise ModelError(msg) from err
        return header
