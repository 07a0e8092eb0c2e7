"""Families that diffusers has only a classic pipeline for: one small class each.

A classic pipeline runs from prompt to pixels in one ``__call__``. A family takes it apart along the same lines, so that
the result is the pipeline's own, bit for bit: which components each stage loads, how a prompt is encoded, how the loop
begins, what one step does, how latents become pixels. To add one, write the class and add it to ``families``.
"""

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch


class Family(Protocol):
    """One classic pipeline, taken apart. ``pipe`` is an instance of it that holds only one stage's components."""

    pipeline_class: str
    components: Mapping[str, tuple[str, ...]]

    def serves(self, index: Mapping[str, Any]) -> bool:
        """Whether this family runs the pipeline of this model_index.json."""

    def encode(self, pipe: Any, params: Mapping[str, Any]) -> dict[str, Any]:
        """Prompt → what the denoise stage needs: tensors and plain values by name."""

    def begin(
        self, pipe: Any, params: Mapping[str, Any], wire: Mapping[str, Any], generator: torch.Generator
    ) -> dict[str, Any]:
        """Everything the loop works on; among it ``timesteps`` and ``latents``. Tensors and plain values only."""

    def step(self, pipe: Any, values: dict[str, Any], i: int) -> None:
        """Compute step ``i``: replace ``values["latents"]``."""

    def decode(self, pipe: Any, latents: torch.Tensor) -> npt.NDArray[np.float32]:
        """Latents → frames × height × width × 3 (or height × width × 3), in [0, 1]."""


def families() -> tuple[Family, ...]:
    """All families, in the order they are asked."""
    from stages.models.families.hunyuan import HunyuanVideo
    from stages.models.families.wan import WanExpanded

    return HunyuanVideo(), WanExpanded()
