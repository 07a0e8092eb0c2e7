"""A denoise stage over several GPUs of a node: this process leads, a process a further GPU computes with it.

The leader's job is the request's; the others get its snapshot when they join, and are then told of each step. The degree
changes between two steps: those that leave forget the request, those that join take it up where it is. A rank that dies,
hangs or fails takes the whole worker down, which its agent replaces; the request is tried again elsewhere.
"""

import contextlib
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any, Final

import msgspec
import torch

from stages.models import groups
from stages.models.base import File, Job, ModelError
from stages.models.meeting import Meeting
from stages.models.rank_wire import Begin, Leave, Load, Ready, StepOn, answers, read, write
from stages.parcel import Parcel
from stages.protocol import ModelSource
from stages.settings import groups_on_this_host, rank_environment

log = logging.getLogger(__name__)

TIMEOUT_S: Final = 120.0  # of one collective operation: longer than the slowest layer of the slowest device
LOST_CODE: Final = 7


def lose_worker(why: str) -> None:
    """End this process: with a rank of it gone its group cannot be used, and collectives may hang."""
    log.critical("a rank is lost: %s", why)
    os._exit(LOST_CODE)


class Ranks:
    """The other processes. Used by the compute thread; a thread watches that they live."""

    def __init__(
        self, count: int, source: ModelSource, stage: str, device: torch.device,
        lost: Callable[[str], None] = lose_worker, timeout_s: float = TIMEOUT_S,
    ) -> None:  # fmt: skip
        self._lost, self._closing = lost, False
        self._meeting = Meeting()
        self.folder, self.timeout_s = self._meeting.folder, timeout_s
        self.processes = [self._start(rank, device) for rank in range(1, count)]
        where = "cpu" if device.type == "cpu" else "cuda:0"
        for process in self.processes:
            self._say(process, Load(source, stage, where, self.folder, timeout_s))
        self.peak_bytes = max(self._answer(process).peak_bytes for process in self.processes)
        for process in self.processes:
            threading.Thread(target=self._watch, args=(process,), name="rank", daemon=True).start()

    def say(self, orders: list[Any], *, answered: bool) -> None:
        """The first rank gets the first order. Returns when all have answered, if they do."""
        told = list(zip(self.processes, orders, strict=False))
        for process, order in told:
            self._say(process, order)
        if answered:
            for process, _ in told:
                self._answer(process)

    def order(self, orders: list[Any]) -> Callable[[], None]:
        """Give orders; the answers are waited for by what is returned."""
        self.say(orders, answered=False)

        def wait() -> None:
            for process, _ in zip(self.processes, orders, strict=False):
                self._answer(process)

        return wait

    def close(self) -> None:
        """End them."""
        self._closing = True
        for process in self.processes:
            process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    with contextlib.suppress(OSError):  # what nobody read is lost
                        stream.close()
        self._meeting.close()

    def _start(self, rank: int, device: torch.device) -> "subprocess.Popen[bytes]":
        env = rank_environment(rank) if device.type == "cuda" else rank_environment(None)
        if env is None:
            msg = f"this worker is to compute on {rank + 1} GPUs and was shown fewer"
            raise ModelError(msg)
        command = [sys.executable, "-m", "stages.models.rank"]
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env)

    def _say(self, process: "subprocess.Popen[bytes]", order: Any) -> None:
        assert process.stdin is not None  # noqa: S101  # it is a pipe
        try:
            write(process.stdin, order)
        except OSError as err:
            raise self._failed(f"it takes no orders: {err}") from err

    def _answer(self, process: "subprocess.Popen[bytes]") -> Ready:
        """The rank's own operations have time-outs, so it answers or ends."""
        assert process.stdout is not None  # noqa: S101  # it is a pipe
        try:
            answer = read(process.stdout, answers)
        except EOFError as err:
            raise self._failed(str(err)) from err
        if not isinstance(answer, Ready):
            raise self._failed(answer.message)
        return answer

    def _failed(self, why: str) -> RuntimeError:
        if not self._closing:
            self._lost(why)
        return RuntimeError(f"a rank is lost: {why}")

    def _watch(self, process: "subprocess.Popen[bytes]") -> None:
        code = process.wait()
        if not self._closing:
            self._lost(f"its process ended with {code}")


class SpreadStage:
    """``inner`` on ``count`` GPUs. Requests may use fewer."""

    preemptible = True

    def __init__(
        self, inner: Any, source: ModelSource, stage: str, device: torch.device,
        lost: Callable[[str], None] = lose_worker, timeout_s: float = TIMEOUT_S,
    ) -> None:  # fmt: skip
        self.count, self.inner, self.device = source.ranks, inner, device
        groups.spreadable(inner.pipeline)
        groups_on_this_host()
        self.ranks = Ranks(self.count, source, stage, device, lost, timeout_s)
        self.peak_bytes = max(inner.peak_bytes, self.ranks.peak_bytes)
        self._holder: tuple[SpreadJob, int] | None = None  # whose state the ranks have, and how many of them
        self._groups = 0

    def start(self, params: dict[str, Any], inputs: Parcel | None) -> "SpreadJob":
        """Begin a request; on all GPUs, unless it is told otherwise before its first step."""
        return SpreadJob(self, params, self.inner.start(params, inputs))

    def resume(self, params: dict[str, Any], snapshot: Parcel) -> "SpreadJob":
        """Go on from a snapshot, whatever the degree it was taken at."""
        return SpreadJob(self, params, self.inner.resume(params, snapshot))

    def unload(self) -> None:
        """Free the memory of all."""
        self.disband()
        self.ranks.close()
        self.inner.unload()

    def gather(self, job: "SpreadJob", degree: int) -> None:
        """Have so many GPUs hold the job's state, from the present step boundary on."""
        if self._holder == (job, degree) or (degree == 1 and self._holder is None):
            return
        self.disband()
        if degree == 1:
            return
        self._groups += 1
        group, snapshot = f"group{self._groups}", job.snapshot()
        params = msgspec.json.encode(job.params)
        buffers = tuple(bytes(buffer) for buffer in snapshot.buffers)
        orders = [
            Begin(group, rank, degree, params, snapshot.tree, snapshot.tensors, buffers) for rank in range(1, degree)
        ]
        begun = self.ranks.order(orders)
        groups.join(self.inner.pipeline, self.ranks.folder, group, 0, degree, self.device, self.ranks.timeout_s)
        begun()
        self._holder = (job, degree)

    def step_others(self, degree: int) -> None:
        """Tell the ranks that compute with us to do a step."""
        self.ranks.say([StepOn()] * (degree - 1), answered=False)

    def disband(self, job: "SpreadJob | None" = None) -> None:
        """Nobody else holds a job's state (this one's, where one is named) any more."""
        if self._holder is None or (job is not None and self._holder[0] is not job):
            return
        left = self.ranks.order([Leave()] * (self._holder[1] - 1))
        self._holder = None
        groups.leave(self.inner.pipeline)
        left()


class SpreadJob:
    """A request on one or several GPUs."""

    def __init__(self, stage: SpreadStage, params: dict[str, Any], inner: Job) -> None:
        self.params = params
        self.degree = stage.count
        self._stage, self._inner = stage, inner

    @property
    def total_steps(self) -> int:
        """As on one GPU."""
        return self._inner.total_steps

    @property
    def steps_done(self) -> int:
        """As on one GPU."""
        return self._inner.steps_done

    def spread(self, degree: int) -> None:
        """Be computed on so many GPUs from the next step on; as many as there are, if that is fewer."""
        self.degree = max(1, min(degree, self._stage.count))

    def step(self) -> bool:
        """One step, on all GPUs of the degree. True while more remain."""
        self._stage.gather(self, self.degree)
        if self.degree > 1:
            self._stage.step_others(self.degree)
        more = self._inner.step()
        if not more:
            self._stage.disband(self)
        return more

    def snapshot(self) -> Parcel:
        """As on one GPU."""
        return self._inner.snapshot()

    def finish(self) -> Parcel | File:
        """As on one GPU."""
        return self._inner.finish()


def check_spreadable(source: ModelSource, stage: str, wanted: str) -> None:
    """Raises ModelError where a stage is not one that can be spread."""
    if stage != wanted:
        msg = f"{source.name}: only the {wanted} stage can be spread over several GPUs, not {stage}"
        raise ModelError(msg)
