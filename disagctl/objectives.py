"""What the spec promises for each kind of request: seconds from acceptance to result."""

from collections.abc import Callable

from disagctl.spec import Spec
from disagctl.spec.schema import Shape as WishedShape
from disagctl.spec.schema import Slo
from planner.domain import Shape

Alone = Callable[[str, Shape], float | None]


class Objectives:
    """``alone``: seconds that a request of a model and shape takes with the fleet to itself; None: not known."""

    def __init__(self, spec: Spec, alone: Alone) -> None:
        self._alone = alone
        self._models = {entry.name: spec.slo_of(entry) for entry in spec.models}
        self._shapes = {entry.name: [s for s in spec.workload_of(entry).shapes if s.slo] for entry in spec.models}

    def seconds(self, model: str, shape: Shape | None) -> float | None:
        """The objective of a request; None: there is none, or it hangs on a time that is not known yet."""
        slo = self._slo(model, shape)
        if slo.p95_s is not None:
            return slo.p95_s
        alone = self._alone(model, shape) if slo.scale is not None and shape is not None else None
        return alone * slo.scale if alone is not None and slo.scale is not None else None

    def _slo(self, model: str, shape: Shape | None) -> Slo:
        if shape is not None:
            for one in self._shapes.get(model, ()):
                if one.slo is not None and _fits(one, shape):
                    return one.slo
        return self._models.get(model) or Slo()


def _fits(wished: WishedShape, shape: Shape) -> bool:
    same = (wished.size.width, wished.size.height, wished.frames) == (shape.width, shape.height, shape.frames)
    return same and wished.steps in (None, shape.steps)
