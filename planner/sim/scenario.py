"""What is simulated: a service, its machines and their imperfections. Plain data."""

from collections.abc import Callable, Mapping

import msgspec

from planner.domain import Offer, Role, Shape
from planner.run.config import PolicyConfig
from planner.run.fleet import NodeWish

Seconds = Callable[[Role, str, Shape], float]
"""(role, accelerator, shape) → seconds as they really are."""


class Arriving(msgspec.Struct, frozen=True, array_like=True):
    """A request of the trace. ``at_s`` from the trace's begin."""

    at_s: float
    model: str
    shape: Shape


class Trace(msgspec.Struct, frozen=True):
    """Requests in order of arrival. ``changes_s``: when the mix or the rate changed, as far as the generator knows."""

    name: str
    rows: tuple[Arriving, ...]
    changes_s: tuple[float, ...] = ()

    @property
    def end_s(self) -> float:
        """The last arrival."""
        return self.rows[-1].at_s if self.rows else 0.0


class Noise(msgspec.Struct, frozen=True):
    """What goes otherwise than planned. Sigmas are of logarithms.

    ``transfer_s``: of a hand-over, which workers overlap with computing unless ``synchronous``; with probability
    ``jitter_share`` it takes ``jitter_s`` more. ``preempt_per_h``: of a spot node. ``publish_s``: from the last stage's end to
    the durable result.
    """

    service_sigma: float = 0.0
    load_sigma: float = 0.0
    launch_sigma: float = 0.0
    transfer_s: float = 0.0
    jitter_share: float = 0.0
    jitter_s: float = 0.0
    preempt_per_h: float = 0.0
    publish_s: float = 0.0
    first_task_factor: float = 1.0  # of a worker's first task in a role


class Scenario(msgspec.Struct, frozen=True):
    """``stages``: model → its stages in order. ``load_s``: (role) → seconds to load once memory is free.

    ``nodes``: what is there at the begin, warm. ``offers``: what WishNodes may name. ``in_flight``: closed load: so many
    requests are kept in the system, whatever the trace's times say (0: open load).
    """

    trace: Trace
    stages: Mapping[str, tuple[str, ...]]
    seconds: Seconds
    load_s: Mapping[Role, float]
    nodes: tuple[NodeWish, ...]
    policy: PolicyConfig
    slo_s: Mapping[str, float] = {}
    noise: Noise = Noise()
    seed: int = 1
    prefetch: int = 2
    synchronous: bool = False
    in_flight: int = 0
    predicted: Seconds | None = None  # what the policy's profiles say; None: the truth
    end_s: float | None = None  # when to stop; None: at the last arrival

    @property
    def roles(self) -> tuple[Role, ...]:
        """Of all models, in order."""
        return tuple(Role(model, stage) for model, stages in self.stages.items() for stage in stages)


def offer_of(accelerator: str, count: int = 1, usd_per_hour: float = 0.0, launch_s: float = 300.0) -> Offer:
    """A node that no catalog sells."""
    return Offer(
        "sim", "here", f"{accelerator or 'cpu'}x{count}", accelerator, count, False, usd_per_hour, None, launch_s
    )
