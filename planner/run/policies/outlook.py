"""What becomes of a job if it has so many GPUs for a while: predictions that the elastic policies value their options by."""

from typing import Final

import msgspec

from planner.domain import Role
from planner.run.orders import Instance, Job, Running, Times, View
from planner.run.policies.floor import Floor

UNKNOWN_S: Final = 1.0
STEEPNESS: Final = 2.0  # how the chance to be on time falls with tightness, see Prospect.chance
LOSS: Final = 0.9
REMEMBERED: Final = 256  # decisions
NEVER: Final = float("inf")
SPREAD: Final = "denoise"  # the stage that degrees are for
POWERS: Final = (1, 2, 4, 8, 16, 32, 64)


class Table(msgspec.Struct, frozen=True):
    """By number of GPUs: seconds of one step, and of the stages that come after. Of a stage without steps: on one GPU."""

    step_s: dict[int, float]
    after_s: dict[int, float]


class Prospect(msgspec.Struct, frozen=True):
    """One job. ``rest_s``: after its stage, at best; ``fastest_s``: its stage at best.

    ``window_s``: until its deadline. ``setup_s``: before its next step, were it started. ``work_s``: all of it on one GPU.
    ``has``: GPUs that it has at present, and ``boundary_s``: until it could have others, at the end of its step.
    """

    left: int
    table: Table
    rest_s: float
    fastest_s: float
    window_s: float
    setup_s: float
    work_s: float
    has: int = 0
    boundary_s: float = 0.0

    def chance(self, gpus: int, ahead_s: float) -> float:
        """To be on time, having so many GPUs for the next moments: 0 when it cannot be, else less the tighter it gets."""
        if self.window_s == NEVER:
            return self.progress(gpus, ahead_s)
        rest, window = self.fastest_s + self.rest_s, self.window_s - ahead_s
        if gpus:
            stage = self.left * self.table.step_s[gpus] + self.setup_s
            if stage <= ahead_s:
                rest, window = self.rest_s, self.window_s - stage
            elif ahead_s > self.setup_s:
                rest -= self.fastest_s * (ahead_s - self.setup_s) / (stage - self.setup_s)
        else:
            rest += self.setup_s
        if rest > window:
            return 0.0
        return 1.0 - LOSS * (rest / window) ** STEEPNESS if window > 0 else 1.0

    def progress(self, gpus: int, ahead_s: float) -> float:
        """Share of all its work that is done in the next moments."""
        if not gpus or ahead_s <= self.setup_s:
            return 0.0
        steps = min((ahead_s - self.setup_s) / max(self.table.step_s[gpus], 1e-9), self.left)
        return steps * self.table.step_s[1] / max(self.work_s, 1e-9)

    def takes_s(self, gpus: int) -> float:
        """Until it is finished, were its stage started on so many."""
        return self.setup_s + self.left * self.table.step_s[gpus] + self.rest_s

    def speed(self, gpus: int) -> float:
        """Times faster than on one GPU, over what is left of its stage; 0 on none. Waiting for the boundary counts."""
        if not gpus:
            return 0.0
        steps, alone = self.table.step_s, self.left * self.table.step_s[1]
        if gpus == self.has:
            return steps[1] / steps[gpus]
        takes = self.boundary_s + (self.left - 1) * steps[gpus] if self.has else self.setup_s + self.left * steps[gpus]
        return alone / max(takes, 1e-9)


class Outlook:
    """Prospects by the predictions. ``elastic``: whether degrees above 1 may be counted on."""

    def __init__(self, times: Times, *, elastic: bool) -> None:
        self.times, self._elastic = times, elastic
        self._tables: dict[tuple[object, ...], Table] = {}
        self._decisions = 0

    def begin(self) -> None:
        """A decision begins. Predictions change: what was remembered of them is forgotten now and then."""
        self._decisions += 1
        if self._decisions % REMEMBERED == 0:
            self._tables.clear()

    def degrees(self, view: View) -> tuple[int, ...]:
        """Powers of two up to the largest node's GPUs that may be lent."""
        nodes: dict[str, int] = {}
        for one in view.instances:
            if one.joins and not one.draining:
                nodes[one.node] = nodes.get(one.node, 0) + 1
        most = max(nodes.values(), default=1) if self._elastic else 1
        return tuple(power for power in POWERS if power <= most)

    def table(self, job: Job, floor: Floor, batch: int = 1) -> Table:
        """Of the job's stage and those after."""
        key = (job.role, job.shape, job.after, batch, floor.accelerator, floor.degrees)
        found = self._tables.get(key)
        if found is None:
            name, degrees = floor.accelerator, floor.degrees
            step = {gpus: self._step_s(job, name, gpus, batch) for gpus in degrees}
            after = {gpus: self._after_s(job, name, gpus) for gpus in degrees}
            found = self._tables[key] = Table(step, after)
        return found

    def _step_s(self, job: Job, accelerator: str, gpus: int, batch: int) -> float:
        step = self.times.step_s(job.role, accelerator, job.shape, batch, gpus if job.steps > 1 else 1)
        return UNKNOWN_S if step is None else step

    def _after_s(self, job: Job, accelerator: str, gpus: int) -> float:
        total = 0.0
        for stage in job.after:
            split = gpus if stage == SPREAD else 1
            found = self.times.stage_s(Role(job.role.model, stage), accelerator, job.shape, split)
            total += UNKNOWN_S if found is None else found
        return total

    def prospect(self, job: Job, floor: Floor, batch: int = 1, task: Running | None = None) -> Prospect:
        """Of a job that waits, or runs in ``task``."""
        table, most = self.table(job, floor, batch), floor.degrees[-1]
        has, boundary_s = 0, 0.0
        if task is not None:
            has = floor.size(task)
            step_s = table.step_s.get(task.degree, table.step_s[1])
            boundary_s = min(max(task.step_since_s + step_s - floor.now, 0.0), step_s)
        return Prospect(
            left=job.left,
            table=table,
            rest_s=table.after_s[most],
            fastest_s=job.left * table.step_s[most],
            window_s=NEVER if job.deadline_s is None else job.deadline_s - floor.now,
            setup_s=self.times.resume_s(job, job.held_by),
            work_s=job.left * table.step_s[1] + table.after_s[1],
            has=has,
            boundary_s=boundary_s,
        )

    def least_work_s(self, job: Job, floor: Floor) -> float | None:
        """GPU-seconds at the least degree that makes it on time; None: none does."""
        if job.deadline_s is None:
            return None
        table, spread = self.table(job, floor), SPREAD in job.after
        for gpus in floor.degrees:
            stage, after = job.left * table.step_s[gpus], table.after_s[gpus]
            if floor.now + stage + after <= job.deadline_s:
                return stage * (gpus if job.steps > 1 else 1) + after * (gpus if spread else 1)
        return None

    def end_s(self, task: Running, floor: Floor) -> float:
        """When a running task's stage is over."""
        job = task.jobs[0]
        steps = self.table(job, floor, len(task.jobs)).step_s
        return max(task.step_since_s + job.left * steps.get(task.degree, steps[1]), floor.now)

    def fits(self, job: Job, floor: Floor, batch: int) -> bool:
        """Whether a batch has room beside the weights."""
        at: Instance | None = next(iter(floor.able(job)), None)
        if at is None or not at.memory_gib:
            return True
        held = sum(self.times.weights_gib(role) for role in at.residents)
        return held + self.times.active_gib(job.role, job.shape, batch) <= at.memory_gib
