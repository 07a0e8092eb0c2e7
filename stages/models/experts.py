"""The part of a denoise loop that one of two experts computes (Wan 2.2 A14B, cut into ``denoise_high`` and ``denoise_low``).

The pipeline gives each step to the expert on whose side of the boundary its timestep lies. Timesteps only fall, so the
first expert's steps come first, and the loop's snapshot after the last of them is all that the second one needs.
"""

from typing import Any, Final

HIGH: Final = "denoise_high"
LOW: Final = "denoise_low"


def first_steps(pipeline: Any, timesteps: Any) -> int:
    """How many of the steps are the first expert's: all, some or none."""
    boundary = pipeline.config.boundary_ratio * pipeline.num_train_timesteps
    return int((timesteps >= boundary).sum())
