"""What arrives: classes of requests at a load that is a multiple of what a static whole-pipeline fleet can do. Pure."""

from collections.abc import Mapping
from typing import Final, Literal

import msgspec

from planner.domain import Shape
from planner.sim.coserve.laws import Laws
from planner.sim.rng import Rng

BURST_SHAPE: Final = 0.25  # of the gamma distribution of the gaps: a squared coefficient of variation of 4


class RequestKind(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A class of requests; ``weight``: its share of them, up to a factor."""

    model: str
    width: int
    height: int
    frames: int
    steps: int
    weight: float

    @property
    def shape(self) -> Shape:
        """As the planner has it."""
        return Shape(self.width, self.height, self.frames, self.steps)

    @property
    def video(self) -> bool:
        """Whether it has more than one frame."""
        return self.frames > 1


class Seeds(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Those that policies may be tuned on, and those that claims are made on."""

    tuning: tuple[int, ...]
    held_out: tuple[int, ...]


class CoWorkload(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One file of ``bench/workloads``. ``phases``: model → factor of its weights, in equal parts of the run.

    ``requests``: GPUs → how many arrive. ``loads``: multiples of the static whole-pipeline fleet's capacity at degree 1.
    """

    name: str
    about: str
    gpus: tuple[int, ...]
    node_gpus: int
    loads: tuple[float, ...]
    slo_scales: tuple[float, ...]
    requests: Mapping[str, int]
    arrivals: Literal["poisson", "bursty"]
    noise_sigma: float
    seeds: Seeds
    classes: tuple[RequestKind, ...]
    phases: tuple[Mapping[str, float], ...] = ({},)


class Arrival(msgspec.Struct, frozen=True):
    """One request. ``due_s``: its objective, on the run's clock."""

    at_s: float
    model: str
    shape: Shape
    due_s: float
    video: bool


def mean_gpu_s(workload: CoWorkload, laws: Laws) -> float:
    """GPU-seconds of a mean request, over all phases."""
    total = sum(kind.weight for kind in workload.classes)
    work = sum(kind.weight * laws.gpu_s(kind.model, kind.shape) for kind in workload.classes)
    return work / total


def arrivals(workload: CoWorkload, laws: Laws, gpus: int, load: float, scale: float, seed: int) -> list[Arrival]:
    """All of a run, in order. The same requests come at every load and scale, only faster or with other objectives."""
    rng = Rng(seed, workload.name)
    gaps, kinds = rng.split("gaps"), rng.split("kinds")
    count = workload.requests[str(gpus)]
    mean_gap = mean_gpu_s(workload, laws) / (gpus * load)
    found, now = [], 0.0
    for index in range(count):
        now += gaps.exponential(mean_gap) if workload.arrivals == "poisson" else gaps.gamma(BURST_SHAPE, mean_gap)
        phase = workload.phases[index * len(workload.phases) // count]
        kind = _pick(workload.classes, phase, kinds.uniform())
        due = now + scale * laws.isolated_s(kind.model, kind.shape)
        found.append(Arrival(now, kind.model, kind.shape, due, kind.video))
    return found


def _pick(classes: tuple[RequestKind, ...], phase: Mapping[str, float], draw: float) -> RequestKind:
    weights = [kind.weight * phase.get(kind.model, 1.0) for kind in classes]
    left = draw * sum(weights)
    for kind, weight in zip(classes, weights, strict=True):
        left -= weight
        if left < 0:
            return kind
    return classes[-1]
