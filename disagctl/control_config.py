"""What the control loop is told once, from the spec: how many workers a stage may have, and what is known of their times."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from disagctl.errors import DisagctlError
from disagctl.planning.demand import demand
from disagctl.planning.files import Lines
from disagctl.service import ModelInfo
from disagctl.spec import Spec
from disagctl.spec.infra import LOCAL
from disagctl.spec.schema import SYNTHETIC
from planner.domain import Role, Shape, Workload
from planner.run.config import PolicyConfig, RoleBounds
from stages.models.synthetic import StageOptions, parse
from stages.protocol import ModelSource

log = logging.getLogger(__name__)

LAUNCH_S: Final = 300.0
SOLVE_LIMIT_S: Final = 30.0


def role_bounds(spec: Spec, models: list[ModelInfo]) -> tuple[RoleBounds, ...]:
    """Fewest and most workers of every role, stage after stage; a stage that the spec says nothing of has at least one."""
    found = []
    for model in models:
        for stage in model.card.stages:
            said = spec.wish(model.name, stage).replicas
            found.append(RoleBounds(Role(model.name, stage), said.min if said else 1, said.max if said else None))
    return tuple(found)


def places(spec: Spec, bounds: tuple[RoleBounds, ...], gpus: int) -> int | None:
    """Workers that this machine is to have: as the spec says, else one a GPU where a stage has a range, else the least.

    None: there are nodes, and they decide.
    """
    if spec.infra != [LOCAL]:
        return None
    ranges = any(bound.most is not None and bound.most > bound.least for bound in bounds)
    return max(sum(bound.least for bound in bounds), spec.policy.workers or (gpus if ranges else 0))


def first_counts(bounds: tuple[RoleBounds, ...], room: int | None) -> dict[Role, int]:
    """Counts to begin with while nothing is known: the least of each, and what is left to the smallest first."""
    counts = {bound.role: bound.least for bound in bounds}
    for _ in range((room or 0) - sum(counts.values())):
        open_to_more = [b.role for b in bounds if b.most is None or counts[b.role] < b.most]
        if not open_to_more:
            break
        counts[min(open_to_more, key=lambda role: counts[role])] += 1
    return counts


def within(count: int, bound: RoleBounds) -> int:
    """The count, or the nearest that is allowed."""
    return min(max(count, bound.least), count if bound.most is None else bound.most)


class Known:
    """What is known before anything is measured: of each role and shape the seconds, of each role the load."""

    def __init__(self, spec: Spec, path: Path) -> None:
        self.workload: Workload | None = None
        self._declared = {e.name: parse(spec.source(e).options) for e in spec.models if e.id == SYNTHETIC}
        try:
            if len(self._declared) == len(spec.models):
                self.workload = demand(spec, dict.fromkeys(self._declared), Lines(path))
        except (DisagctlError, OSError) as err:
            log.warning("the control loop begins without profiles: %s", err)

    def seconds(self, role: Role, accelerator: str, shape: Shape) -> float | None:
        """Of one request, by the profiles; None: nothing is known."""
        options = self._declared.get(role.model, {}).get(role.stage)
        if options is not None:
            return declared_s(options, shape)
        return None

    def load_s(self, roles: tuple[RoleBounds, ...]) -> dict[Role, float]:
        """Expected seconds to load, of the roles of which it is known."""
        loads = {}
        for role in (bound.role for bound in roles):
            options = self._declared.get(role.model, {}).get(role.stage)
            if options:
                loads[role] = options.load_s
        return loads


def declared_s(options: StageOptions, shape: Shape) -> float:
    """How long a synthetic stage says that it waits."""
    return options.seconds if options.seconds_per_step is None else options.seconds_per_step * shape.steps


def widths_of(sources: Mapping[Role, ModelSource]) -> dict[Role, int]:
    """GPUs of each worker, of the roles that have several."""
    return {role: source.ranks for role, source in sources.items() if source.ranks > 1}


def loop_off(spec: Spec, widths: Mapping[Role, int], gpus: int) -> str:
    """Why counts stay as they are on this machine; "" when they need not. The loop takes each worker for one GPU: it would move
    workers to GPUs that others compute on."""
    if spec.infra != [LOCAL] or not gpus:
        return ""
    return next((f"{role.stage} has {width} GPUs a worker" for role, width in widths.items()), "")


def policy_config(
    spec: Spec, bounds: tuple[RoleBounds, ...], known: Known, slo_s: Mapping[str, float], off: str = ""
) -> PolicyConfig:
    """The policy's configuration on this machine. ``off``: why it does nothing."""
    return PolicyConfig(
        roles=bounds,
        mode="static" if off else spec.policy.scaling,
        slo_p95_s=dict(slo_s),
        load_s=known.load_s(bounds),
        launch_s=LAUNCH_S,
        interval_s=spec.policy.interval_s,
        placed=spec.policy.dispatching.places,
        max_usd_per_hour=spec.budget.max_usd_per_hour,
        max_usd_total=spec.budget.max_usd_total,
        workload=known.workload,
    )
