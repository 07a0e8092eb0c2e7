"""How long moving capacity takes: loading weights, draining, launching nodes. Measured, and what was expected until then."""

from collections.abc import Mapping
from typing import Final

from planner.domain import Role
from planner.run.observe import Lapse

GAIN: Final = 0.3
LEAST_LOAD_S: Final = 10.0  # expected of weights of which nothing is known


class Delays:
    """Moving means. ``load_s``, ``launch_s``: expected before anything was measured."""

    def __init__(self, load_s: Mapping[Role, float], launch_s: float) -> None:
        self._load = dict(load_s)
        self._measured: set[Role] = set()
        self._drain: dict[Role, float] = {}
        self._launch_s = launch_s
        self._launched = False

    def add(self, lapse: Lapse) -> None:
        """Take in a measurement."""
        if lapse.kind == "launch":
            self._launch_s = _mean(self._launch_s, lapse.seconds) if self._launched else lapse.seconds
            self._launched = True
        elif lapse.role is None:
            return
        elif lapse.kind == "load":
            known = self._load.get(lapse.role) if lapse.role in self._measured else None
            self._load[lapse.role] = lapse.seconds if known is None else _mean(known, lapse.seconds)
            self._measured.add(lapse.role)
        else:
            known = self._drain.get(lapse.role)
            self._drain[lapse.role] = lapse.seconds if known is None else _mean(known, lapse.seconds)

    def load_s(self, role: Role) -> float:
        """Until a worker of the role is ready, from when its memory is free."""
        return self._load.get(role, LEAST_LOAD_S)

    def drain_s(self, role: Role, service_s: float) -> float:
        """Until a worker has finished and nobody needs what it holds; a service time until measured."""
        return self._drain.get(role, service_s)

    @property
    def launch_s(self) -> float:
        """Until a node's agent reports."""
        return self._launch_s

    def dump(self) -> list[Lapse]:
        """What was measured, as lapses to take in again."""
        loads = [Lapse("load", self._load[role], role) for role in sorted(self._measured, key=str)]
        drains = [Lapse("drain", seconds, role) for role, seconds in self._drain.items()]
        return loads + drains + ([Lapse("launch", self._launch_s)] if self._launched else [])

    def all(self) -> dict[str, float]:
        """For whoever watches: load.<role>, drain.<role>, launch."""
        loads = {f"load.{role}": seconds for role, seconds in self._load.items()}
        return {**loads, **{f"drain.{role}": s for role, s in self._drain.items()}, "launch": self._launch_s}


def _mean(old: float, new: float) -> float:
    return old + GAIN * (new - old)
