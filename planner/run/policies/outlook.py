"""What becomes of a job if it has so many GPUs for a while: predictions that the elastic policies value their options by."""

from typing import Final

import msgspec

from planner.domain import Role
from planner.run.orders import Instance, Job, Running, Times, View
from planner.run.policies.floor import Floor

UNKNOWN_S: Final = 1.0
STEEPNESS: Final = 3.0  # how the chance to be on time falls with tightness, see Prospect.chance
LOSS: Final = 0.5
NEVER: Final = float("inf")
POWERS: Final = (1, 2, 4, 8, 16, 32, 64)


class Prospect(msgspec.Struct, frozen=True):
    """One job. ``stage_s``: its stage on so many GPUs; ``rest_s``: after that, at best; ``fastest_s``: its stage at best.

    ``window_s``: until its deadline. ``setup_s``: before its next step, were it started.
    """

    stage_s: dict[int, float]
    rest_s: float
    fastest_s: float
    window_s: float
    setup_s: float
    work_s: float

    def chance(self, gpus: int, ahead_s: float) -> float:
        """To be on time, having so many GPUs for the next moments: 0 when it cannot be, else less the tighter it gets."""
        if self.window_s == NEVER:
            return self.progress(gpus, ahead_s)
        rest, window = self.fastest_s + self.rest_s, self.window_s - ahead_s
        if gpus:
            stage = self.stage_s[gpus] + self.setup_s
            if stage <= ahead_s:
                rest, window = self.rest_s, self.window_s - stage
            else:
                rest -= self.fastest_s * (ahead_s - min(self.setup_s, ahead_s)) / self.stage_s[gpus]
        else:
            rest += self.setup_s
        if rest > window:
            return 0.0
        return 1.0 - LOSS * (rest / window) ** STEEPNESS if window > 0 else 1.0

    def progress(self, gpus: int, ahead_s: float) -> float:
        """Share of all its work that is done in the next moments."""
        if not gpus:
            return 0.0
        share = min(max(ahead_s - self.setup_s, 0.0) / max(self.stage_s[gpus], 1e-9), 1.0)
        return share * self.stage_s[1] / max(self.work_s, 1e-9)


class Outlook:
    """Prospects by the predictions. ``elastic``: whether degrees above 1 may be counted on."""

    def __init__(self, times: Times, *, elastic: bool) -> None:
        self.times, self._elastic = times, elastic

    def degrees(self, view: View) -> tuple[int, ...]:
        """Powers of two up to the largest node's GPUs that may be lent."""
        nodes: dict[str, int] = {}
        for one in view.instances:
            if one.joins and not one.draining:
                nodes[one.node] = nodes.get(one.node, 0) + 1
        most = max(nodes.values(), default=1) if self._elastic else 1
        return tuple(power for power in POWERS if power <= most)

    def _stage_s(self, job: Job, accelerator: str, gpus: int, batch: int) -> float:
        step = self.times.step_s(job.role, accelerator, job.shape, batch, gpus if job.steps > 1 else 1)
        return job.left * (UNKNOWN_S if step is None else step)

    def _after_s(self, job: Job, accelerator: str, gpus: int) -> float:
        total = 0.0
        for stage in job.after:
            split = gpus if stage == "denoise" else 1
            found = self.times.stage_s(Role(job.role.model, stage), accelerator, job.shape, split)
            total += UNKNOWN_S if found is None else found
        return total

    def prospect(self, job: Job, floor: Floor, now: float, batch: int = 1) -> Prospect:
        """Of a job that waits or runs."""
        name = floor.accelerator
        stages = {gpus: self._stage_s(job, name, gpus, batch) for gpus in floor.degrees}
        window = NEVER if job.deadline_s is None else job.deadline_s - now
        return Prospect(
            stage_s=stages,
            rest_s=self._after_s(job, name, floor.degrees[-1]),
            fastest_s=min(stages.values()),
            window_s=window,
            setup_s=self.times.resume_s(job, job.held_by),
            work_s=stages[1] + self._after_s(job, name, 1),
        )

    def least_work_s(self, job: Job, floor: Floor, now: float) -> float | None:
        """GPU-seconds at the least degree that makes it on time; None: none does."""
        if job.deadline_s is None:
            return None
        for gpus in floor.degrees:
            stage, after = self._stage_s(job, floor.accelerator, gpus, 1), self._after_s(job, floor.accelerator, gpus)
            if now + stage + after <= job.deadline_s:
                return stage * (gpus if job.steps > 1 else 1) + after * (gpus if "denoise" in job.after else 1)
        return None

    def end_s(self, task: Running, accelerator: str, now: float) -> float:
        """When a running task's stage is over."""
        job = task.jobs[0]
        step = self.times.step_s(job.role, accelerator, job.shape, len(task.jobs), task.degree)
        return max(task.step_since_s + job.left * (UNKNOWN_S if step is None else step), now)

    def fits(self, job: Job, floor: Floor, batch: int) -> bool:
        """Whether a batch has room beside the weights."""
        at: Instance | None = next(iter(floor.able(job)), None)
        if at is None or not at.memory_gib:
            return True
        held = sum(self.times.weights_gib(role) for role in at.residents)
        return held + self.times.active_gib(job.role, job.shape, batch) <= at.memory_gib
