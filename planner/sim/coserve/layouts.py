"""Fleets to simulate: what resides on which GPUs at the begin, for the static baselines and for policies that move weights."""

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec

from planner.domain import Role
from planner.run.policies.placement import Demand, place
from planner.sim.coserve.fleet import Gpu
from planner.sim.coserve.laws import DENOISE, STAGES, WHOLE, Laws
from planner.sim.coserve.workload import CoWorkload, RequestKind

Layout = Literal["whole", "split", "pools", "shared"]


class Fleet(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """See ``bench/workloads/baselines.toml``. ``images``: share of the GPUs for images alone (``split``)."""

    layout: Layout
    degree: int = 1
    images: float = 0.0


def fleet_of(fleet: Fleet, workload: CoWorkload, laws: Laws, gpus: int) -> tuple[list[Gpu], bool]:
    """The GPUs, and whether requests pass as one stage."""
    if fleet.layout == "whole":
        return _grouped(_loads(workload.classes, laws, (WHOLE,)), gpus, fleet.degree, workload, laws, ""), True
    if fleet.layout == "split":
        count = min(max(round(fleet.images * gpus), 1), gpus - fleet.degree)
        stills = [kind for kind in workload.classes if not kind.video]
        clips = [kind for kind in workload.classes if kind.video]
        first = _grouped(_loads(stills, laws, (WHOLE,)), count, 1, workload, laws, "i")
        return first + _grouped(_loads(clips, laws, (WHOLE,)), gpus - count, fleet.degree, workload, laws, "v"), True
    if fleet.layout == "pools":
        return _pools(workload, laws, gpus, fleet.degree), False
    return _grouped(_loads(workload.classes, laws, STAGES), gpus, 1, workload, laws, "", joins=True), False


def _loads(kinds: Sequence[RequestKind], laws: Laws, stages: Sequence[str]) -> dict[Role, float]:
    """Share of the mean work by role."""
    found: dict[Role, float] = {}
    for kind in kinds:
        for stage in stages:
            role = Role(kind.model, stage)
            found[role] = found.get(role, 0.0) + kind.weight * (laws.stage_s(role, "", kind.shape) or 0.0)
    return found


def _grouped(
    loads: Mapping[Role, float],
    gpus: int,
    degree: int,
    workload: CoWorkload,
    laws: Laws,
    prefix: str,
    *,
    joins: bool = False,
) -> list[Gpu]:
    """Groups of ``degree`` GPUs with the roles that the placement plan gives them; what is left over makes smaller groups."""
    sizes = [degree] * (gpus // degree)
    rest = gpus - sum(sizes)
    while rest:
        sizes.append(1 << int(math.log2(rest)))
        rest -= sizes[-1]
    total = sum(loads.values())
    demands = [
        Demand(role, load / total * gpus, laws.weights_gib(role), _active(role, workload, laws))
        for role, load in loads.items()
    ]
    memory = laws.profiles.memory_gib
    plan = place(demands, {f"{prefix}g{index}": memory for index in range(len(sizes))})
    found, first = [], 0
    for index, size in enumerate(sizes):
        node = f"n{first // workload.node_gpus}"
        found.append(Gpu(f"{prefix}g{index}", prefix + node, plan[f"{prefix}g{index}"], memory, size, joins=joins))
        first += size
    return found


def _active(role: Role, workload: CoWorkload, laws: Laws) -> float:
    shapes = [kind.shape for kind in workload.classes if kind.model == role.model]
    return max((laws.active_gib(role, shape) for shape in shapes), default=0.0)


def _pools(workload: CoWorkload, laws: Laws, gpus: int, degree: int) -> list[Gpu]:
    """At least one GPU a pool; the others where the least cover is. Pools are of stages: models share them as memory allows."""
    loads = _loads(workload.classes, laws, STAGES)
    sizes = dict.fromkeys(STAGES, 1)
    sizes[DENOISE] = degree
    share = {stage: sum(load for role, load in loads.items() if role.stage == stage) for stage in STAGES}
    while True:
        stage = min(STAGES, key=lambda one: sizes[one] / share[one])
        more = degree if stage == DENOISE else 1
        if sum(sizes.values()) + more > gpus:
            break
        sizes[stage] += more
    found = []
    for stage in STAGES:
        mine = {role: load for role, load in loads.items() if role.stage == stage}
        found += _grouped(mine, sizes[stage], degree if stage == DENOISE else 1, workload, laws, stage[:2])
    return found
