"""Who gets the next task, when the spec asks for more than first come, first served (:mod:`planner.run.orders`)."""

from planner.run.orders import DispatchConfig, DispatchPolicy, Times
from planner.run.policies.genserve import GenServe
from planner.run.policies.queue import QueuePolicy, by_deadline, by_laxity
from planner.run.policies.trident import Trident


def make(config: DispatchConfig, times: Times) -> DispatchPolicy:
    """The policy that the spec names. A service with ``fifo`` needs none of these: this one is for simulations."""
    match config.kind:
        case "fifo":
            return QueuePolicy(config, times, None)
        case "edf":
            return QueuePolicy(config, times, by_deadline)
        case "least_laxity":
            return QueuePolicy(config, times, by_laxity)
        case "genserve":
            return GenServe(config, times)
        case "trident":
            return Trident(config, times)
