"""Finding the adapter that serves a model: the entry points of ``disagctl.adapters``, and the built-in ones.

Adapters are imported only when it is their turn to be asked, so that a synthetic model never pays for torch.
"""

import logging
from collections.abc import Iterator
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Final

from stages.models.base import Adapter, ModelError
from stages.protocol import ModelSource

GROUP: Final = "disagctl.adapters"
# Used where the package's metadata lacks them (a checkout on PYTHONPATH that was never installed).
BUILTIN: Final = {
    "synthetic": "stages.models.synthetic:SyntheticAdapter",
    "modular": "stages.models.modular:ModularAdapter",
    "classic": "stages.models.classic:ClassicAdapter",
}
_log = logging.getLogger(__name__)


def available() -> dict[str, EntryPoint]:
    """Adapters by name, in the order they are asked: synthetic, then other packages' by name, then our own."""
    installed = {point.name: point for point in entry_points(group=GROUP)}
    ours = {name: installed.pop(name, EntryPoint(name, value, GROUP)) for name, value in BUILTIN.items()}
    others = {name: installed[name] for name in sorted(installed)}
    return {"synthetic": ours.pop("synthetic"), **others, **ours}


def choose(source: ModelSource) -> Adapter:
    """The adapter ``source.adapter`` names, else the first that supports the model. Raises ModelError for none."""
    points = available()
    if source.adapter is not None:
        if source.adapter not in points:
            msg = f"no adapter is called {source.adapter!r}; there are {', '.join(points)}"
            raise ModelError(msg)
        try:
            return _make(points[source.adapter])
        except (ImportError, AttributeError) as err:
            msg = f"adapter {source.adapter!r} cannot be imported: {err}"
            raise ModelError(msg) from err
    failed: list[str] = []
    for name, adapter in _working(points, failed):
        if adapter.supports(source):
            _log.debug("model %s is served by adapter %s", source.name, name)
            return adapter
    broken = f" ({'; '.join(failed)})" if failed else ""
    msg = f"no adapter serves {source.id!r}; asked {', '.join(points)}{broken}"
    raise ModelError(msg)


def _working(points: dict[str, EntryPoint], failed: list[str]) -> Iterator[tuple[str, Adapter]]:
    """The adapters that can be imported; one that can't must not keep the others from serving."""
    for name, point in points.items():
        try:
            yield name, _make(point)
        except (ImportError, AttributeError) as err:
            _log.warning("adapter %s cannot be imported: %s", name, err)
            failed.append(f"{name} cannot be imported: {err}")


def _make(point: EntryPoint) -> Adapter:
    module, _, name = point.value.partition(":")
    # Not point.load(): that wants the metadata of a distribution, which a built-in fall-back has not.
    adapter = getattr(import_module(module), name)()
    if not isinstance(adapter, Adapter):
        msg = f"{point.value} lacks a method of stages.models.base.Adapter"
        raise ModelError(msg)
    return adapter
