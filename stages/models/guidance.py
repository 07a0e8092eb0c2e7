"""Classifier-free guidance: a component of the modular pipelines, made anew for each request."""

import math
from typing import Any, Final

_GUIDERS: Final = {"guider": "guidance_scale", "guider_2": "guidance_scale_2"}


class Guidance:
    """The guiders of one loaded stage, as the pipeline defines them."""

    def __init__(self, pipeline: Any) -> None:
        self._pipeline = pipeline
        self._defaults = {name: getattr(pipeline, name, None) for name in _GUIDERS}

    @property
    def present(self) -> bool:
        """Whether the family guides by a guider; if not (FLUX), the scale is an input like any other."""
        return self._defaults["guider"] is not None

    def apply(self, params: dict[str, Any], *, keep_negative: bool = False) -> None:
        """Set the scale the request asks for; without one, the pipeline's own.

        A scale of 1 or less turns guidance off. ``guidance_scale_2`` is for families with two experts, and is the first
        scale if not given. keep_negative: leave it on all the same, for an encode stage whose successors want negative
        embeddings even if they do not use them (Wan).
        """
        scale = params.get("guidance_scale")
        for name, field in _GUIDERS.items():
            default = self._defaults[name]
            if default is not None:
                own = params.get(field)
                self._replace(name, _guider(default, scale if own is None else own, keep_negative=keep_negative))

    def _replace(self, name: str, guider: Any) -> None:
        if name in self._pipeline._component_specs:
            self._pipeline.update_components(**{name: guider})
        else:  # a stand-in, not among the stage's own components
            object.__setattr__(self._pipeline, name, guider)


def _guider(default: Any, scale: float | None, *, keep_negative: bool) -> Any:
    config = default.config
    enabled = bool(config.get("enabled", True)) if scale is None else scale > 1
    if scale is None:
        scale = float(config.get("guidance_scale", math.nan))
    if not enabled and keep_negative:
        return default.new(enabled=True, guidance_scale=max(scale, 2.0))
    if not enabled:
        # Some pipelines enable their guider again; at the neutral scale that changes nothing.
        neutral = 0.0 if config.get("use_original_formulation", False) else 1.0
        return default.new(enabled=False, guidance_scale=neutral)
    return default.new(enabled=True, guidance_scale=scale)
