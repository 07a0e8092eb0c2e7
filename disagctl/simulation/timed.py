"""How much processor time decisions take, measured while they are simulated."""

import time
from typing import Any

from planner.run.config import PolicyConfig, Predict
from planner.run.decisions import Decision
from planner.run.observe import Observation
from planner.run.policy import Policy
from planner.sim.world import Tools


class Stopwatch:
    """Makes policies that are timed."""

    def __init__(self) -> None:
        self.ticks_s: list[float] = []

    def tools(self, **more: Any) -> Tools:
        """For :func:`planner.sim.compare.compare`."""
        return Tools(policy=self._policy, **more)

    def summary(self) -> str:
        """One line for people."""
        if not self.ticks_s:
            return "no decisions"
        ordered = sorted(self.ticks_s)
        p99 = ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))]
        return f"a decision takes {ordered[len(ordered) // 2] * 1e3:.2f} ms (p99 {p99 * 1e3:.2f} ms)"

    def _policy(self, config: PolicyConfig, predict: Predict) -> Policy:
        return _Timed(config, predict, self.ticks_s)


class _Timed(Policy):
    def __init__(self, config: PolicyConfig, predict: Predict, ticks_s: list[float]) -> None:
        super().__init__(config, predict)
        self._ticks_s = ticks_s

    def decide(self, seen: Observation, now: float) -> tuple[Decision, ...]:
        begun = time.thread_time()
        found = super().decide(seen, now)
        self._ticks_s.append(time.thread_time() - begun)
        return found
