"""What a dispatch policy is told of times (:class:`planner.run.orders.Times`): the corrected profiles, a step at a time."""

from collections.abc import Callable
from typing import Final

from planner.domain import Role, Shape
from planner.run.orders import Job
from planner.run.pace import Pace
from planner.run.timings import Timings

RESUME_S: Final = 0.05  # a snapshot or an input from another worker, before anything better is known


class StepTimes:
    """By the measured and corrected times of whole stages: the steps of a stage take about the same each.

    Of batches nothing is measured here: a batch takes as long as its members one after another. Workers are taken as a whole,
    whatever GPUs they have; ``pace`` says how quick they are on some of them.
    """

    def __init__(
        self, timings: Timings, goes_in_steps: Callable[[Role], bool], load_s: Callable[[Role], float], pace: Pace
    ) -> None:
        self._timings, self._goes_in_steps, self._load_s, self._pace = timings, goes_in_steps, load_s, pace

    def step_s(self, role: Role, accelerator: str, shape: Shape, batch: int = 1, degree: int = 1) -> float | None:
        """One step; of a stage without steps, all of it."""
        whole = self.stage_s(role, accelerator, shape, degree)
        steps = max(1, shape.steps) if self._goes_in_steps(role) else 1
        return None if whole is None else whole * batch / steps

    def stage_s(self, role: Role, accelerator: str, shape: Shape, degree: int = 1) -> float | None:
        """The whole stage."""
        return self._timings.seconds(role, accelerator, shape) if degree == 1 else None

    def own_step_s(self, role: Role, accelerator: str, shape: Shape, degree: int) -> float | None:
        """As measured."""
        return self._pace.step_s((role, accelerator, shape, degree))

    def resume_s(self, job: Job, worker: str) -> float:
        """Nothing where it is held."""
        return 0.0 if job.held_by in ("", worker) else RESUME_S

    def load_s(self, role: Role, accelerator: str) -> float:
        """As measured, and expected until then."""
        return self._load_s(role)

    def weights_gib(self, role: Role) -> float:
        """Not known here: what a GPU has room for the View says (:class:`planner.run.orders.Card`)."""
        return 0.0

    def active_gib(self, role: Role, shape: Shape, batch: int = 1, degree: int = 1) -> float:
        """Not known here."""
        return 0.0
