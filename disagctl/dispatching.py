"""The dispatch policy of a service, with what it is told of times."""

from collections.abc import Mapping

from disagctl.engine import Engine
from planner.domain import Role, Shape
from planner.run.orders import DispatchConfig, DispatchPolicy
from planner.run.policies import make
from planner.run.policy import Policy
from planner.run.step_times import StepTimes
from planner.run.timings import Timings


def dispatch_policy(
    config: DispatchConfig, engine: Engine, loop: Policy
) -> tuple[DispatchConfig, DispatchPolicy] | None:
    """As the spec says; None: first come, first served, which needs none."""
    if config.kind == "fifo":
        return None
    ledger = engine.ledger
    return config, make(config, StepTimes(loop.timings, ledger.goes_in_steps, loop.delays.load_s, ledger.pace))


class Alone:
    """How long a request takes with the fleet to itself, on the fastest of the GPUs that there are."""

    def __init__(self, engine: Engine, timings: Timings, stages: Mapping[str, tuple[str, ...]]) -> None:
        self._engine, self._timings, self._stages = engine, timings, stages

    def __call__(self, model: str, shape: Shape) -> float | None:
        """Seconds; None where a stage's are not known."""
        roster = self._engine.roster
        gpus = {roster.accelerator(node) for node in roster.nodes} or {""}
        total = 0.0
        for stage in self._stages[model]:
            found = [self._timings.seconds(Role(model, stage), gpu, shape) for gpu in gpus]
            known = [seconds for seconds in found if seconds is not None]
            if not known:
                return None
            total += min(known)
        return total
