"""What policies reckon with: how long a job takes from here, on what, and who may do it."""

from collections.abc import Iterable, Sequence
from typing import Final

from planner.domain import Role
from planner.run.orders import Instance, Job, Running, Times

UNKNOWN_S: Final = 1.0  # a step of which nothing is known: work is then taken much as it comes


class Estimates:
    """Seconds by the predictions."""

    def __init__(self, times: Times) -> None:
        self.times = times

    def step_s(self, job: Job, accelerator: str, degree: int = 1, batch: int = 1) -> float:
        """One step."""
        found = self.times.step_s(job.role, accelerator, job.shape, batch, degree)
        return UNKNOWN_S if found is None else found

    def tail_s(self, job: Job, accelerator: str) -> float:
        """The stages that come after this one, on one GPU each."""
        found = (self.times.stage_s(Role(job.role.model, stage), accelerator, job.shape) for stage in job.after)
        return sum(UNKNOWN_S if seconds is None else seconds for seconds in found)

    def rest_s(self, job: Job, at: Instance, degree: int = 1, batch: int = 1) -> float:
        """Until the request has its result, were its stage started on the instance now."""
        accelerator = at.accelerator
        here = self.times.resume_s(job, at.worker) + job.left * self.step_s(job, accelerator, degree, batch)
        return here + self.tail_s(job, accelerator)

    def boundary_s(self, task: Running, accelerator: str, now: float) -> float:
        """When the step in progress ends."""
        step = self.step_s(task.jobs[0], accelerator, task.degree, len(task.jobs))
        return max(task.step_since_s + step, now)


def can(instance: Instance, job: Job) -> bool:
    """Whether the instance could start the job at once."""
    return instance.credit > 0 and not instance.draining and job.role in instance.residents


def best(instances: Iterable[Instance], job: Job) -> Instance | None:
    """Of those that could start it, one that holds its input, else the one that can do least besides; on none that failed it
    if there is another."""
    able = [instance for instance in instances if can(instance, job)]
    if not able:
        return None
    return min(
        able, key=lambda one: (one.worker in job.avoid, one.worker != job.held_by, len(one.residents), one.worker)
    )


def companions(job: Job, waiting: Sequence[Job], most: int) -> list[Job]:
    """Jobs that may share a batch with this one, itself first, in the order in which they wait."""
    if not job.batch_key:
        return [job]
    others = (one for one in waiting if one.request != job.request and one.batch_key == job.batch_key)
    return [job, *(one for one, _ in zip(others, range(most - 1), strict=False))]
