"""What a policy is told once: mode, bounds, objectives, budget."""

from collections.abc import Callable, Mapping

import msgspec

from planner.domain import Role, Shape, Workload
from planner.run.decisions import Mode
from planner.run.seating import Fits, Seating, Together

Predict = Callable[[Role, str, Shape], float | None]
"""(role, accelerator, shape) → seconds by the profiles; None: nothing is known."""


class RoleBounds(msgspec.Struct, frozen=True):
    """Fewest and most workers of a role; ``most`` None: as many as there is room for."""

    role: Role
    least: int = 1
    most: int | None = None


class PolicyConfig(msgspec.Struct, frozen=True):
    """``roles``: in the order of their stages, model after model. ``slo_p95_s``: model → objective; absent: none.

    ``load_s``, ``launch_s``: expected until measured. ``max_workers``: of all roles together, where nodes do not say
    (``infra: local`` without GPUs). ``elastic``: whether nodes may be wished for. ``interval_s``: between two ticks.
    ``patience_s``: how long a need for fewer workers must hold before one is given up. ``workload``: what is
    expected until requests arrive. ``placed``: the dispatch policy says who changes roles (:meth:`Policy.place`), and the loop
    itself only lays out what is new: machines, bounds, pins. ``fits``: None: anything runs anywhere. ``together``: by type of
    GPU, what one may hold at a time by the dispatch policy's orders, which may be more than ``fits`` has together. ``seating``:
    what each of the machines is for, at first, and ``rented`` what they were rented for; None: just that.
    """

    roles: tuple[RoleBounds, ...]
    mode: Mode = "hybrid"
    slo_p95_s: Mapping[str, float] = {}
    load_s: Mapping[Role, float] = {}
    launch_s: float = 300.0
    interval_s: float = 5.0
    max_workers: int | None = None
    elastic: bool = False
    placed: bool = False
    max_usd_per_hour: float | None = None
    max_usd_total: float | None = None
    patience_s: float = 600.0
    workload: Workload | None = None
    fits: Fits | None = None
    together: Mapping[str, Together] = {}
    seating: Seating | None = None
    rented: Seating | None = None
