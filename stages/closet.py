"""Weights of roles that a worker has left and may soon take again: kept in the host's memory while there is room.

A load moves between stages and back, so the role that a worker left last is the likeliest that it takes next.
"""

import logging
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

import psutil

from stages.memory import weights
from stages.models.base import Parkable, StageModel
from stages.protocol import ModelSource

log = logging.getLogger(__name__)

MOST: Final = 2  # models
SPARE: Final = (
    0.25  # of the machine's memory stays free: all workers of a node do this, and the page cache is of use, too
)

Key = tuple[ModelSource, str]


def host_memory() -> tuple[int, int]:
    """(bytes in all, bytes available)."""
    memory = psutil.virtual_memory()
    return int(memory.total), int(memory.available)


class Closet:
    """Used by the compute thread alone. ``on_device``: parking a model takes host memory that it does not have already."""

    def __init__(
        self,
        *,
        on_device: bool,
        host: Callable[[], tuple[int, int]] = host_memory,
        size: Callable[[], int] = lambda: weights()[0],
    ) -> None:
        self._on_device, self._host, self._size = on_device, host, size
        self._models: OrderedDict[Key, Parkable] = OrderedDict()

    def put(self, key: Key, model: StageModel) -> None:
        """Keep the model if it can be kept, else unload it. The oldest give way."""
        needs = self._size() if self._on_device else 0
        if not isinstance(model, Parkable):
            model.unload()
            return
        while self._models and (len(self._models) >= MOST or not self._fits(needs)):
            self._drop()
        if not self._fits(needs):
            model.unload()
            return
        try:
            model.park()
        except Exception:  # boundary: an engine may raise anything, and then it is simply not kept
            log.exception("%s cannot be kept in memory", key[1])
            model.unload()
        else:
            self._models[key] = model

    def take(self, key: Key) -> StageModel | None:
        """The model, back on its device; None: it is not here, or cannot come back."""
        model = self._models.pop(key, None)
        if model is None:
            return None
        try:
            model.unpark()
        except Exception:  # boundary: as above; it is loaded anew
            log.exception("%s cannot come back from memory", key[1])
            model.unload()
            return None
        return model

    def clear(self) -> None:
        """Let go of everything: the next load needs the room."""
        while self._models:
            self._drop()

    def __len__(self) -> int:
        return len(self._models)

    def _fits(self, needs: int) -> bool:
        total, available = self._host()
        return available - needs >= SPARE * total

    def _drop(self) -> None:
        _, model = self._models.popitem(last=False)
        model.unload()
