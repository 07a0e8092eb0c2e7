"""Loaded stages that only take notes."""

from typing import Any

from stages.models.base import Job
from stages.parcel import Parcel


class Plain:
    """One that knows no host memory."""

    def __init__(self, fails: str = "") -> None:
        self.calls: list[str] = []
        self._fails = fails

    def start(self, params: dict[str, Any], inputs: Parcel | None) -> Job:
        raise NotImplementedError

    def resume(self, params: dict[str, Any], snapshot: Parcel) -> Job:
        raise NotImplementedError

    def unload(self) -> None:
        self._note("unload")

    def _note(self, call: str) -> None:
        self.calls.append(call)
        if call == self._fails:
            raise RuntimeError(call)


class Fake(Plain):
    """One that can wait there."""

    def park(self) -> None:
        self._note("park")

    def unpark(self) -> None:
        self._note("unpark")
