"""The solver's process: a Job on stdin, an Answer on stdout. ``python -m disagctl.planning.worker ALIVE_FD``.

It ends when its parent does: ALIVE_FD is a pipe's end that says so. What a solver's library prints goes to stderr.
"""

import os
import sys
import threading
import time
import traceback
from typing import Final

import msgspec

from disagctl.planning.protocol import Answer, Job, Point
from planner.plan import Infeasible, Plan, explain, plan
from planner.plan.request import PlanRequest

LEAST_S: Final = 0.5  # for one solve of a sweep


def main() -> None:
    """Read, solve, write."""
    if len(sys.argv) > 1:
        threading.Thread(target=_end_with_parent, args=(int(sys.argv[1]),), daemon=True).start()
    out = os.dup(1)
    os.dup2(2, 1)
    job = msgspec.msgpack.decode(sys.stdin.buffer.read(), type=Job)
    _limit_memory(job.memory_bytes)
    try:
        answer = answer_to(job)
    except MemoryError:
        answer = Answer(error="the problem does not fit into the memory that planning may use")
    except Exception as err:  # noqa: BLE001  # boundary: the parent tells the user
        traceback.print_exc()
        answer = Answer(error=f"{type(err).__name__}: {err}"[:500])
    with os.fdopen(out, "wb") as pipe:
        pipe.write(msgspec.msgpack.encode(answer))
    os._exit(0)  # a solver's threads must not keep us


def answer_to(job: Job) -> Answer:
    """Solve everything that the job asks for, within its time."""
    end_s = time.monotonic() + job.time_limit_s
    made = plan(job.request, time_limit_s=job.time_limit_s, alternatives=job.alternatives)
    answer = Answer(plan=made)
    if job.explain is not None and isinstance(made, Plan):
        stage, gpu = job.explain
        answer.explanation = explain(job.request, made, stage, gpu, time_limit_s=max(end_s - time.monotonic(), LEAST_S))
    end_s = time.monotonic() + job.sweep_s
    for index, (rate, slo) in enumerate(job.sweep):
        left_s = (end_s - time.monotonic()) / (len(job.sweep) - index)
        answer.sweep.append(_point(job.request, rate, slo, left_s))
    return answer


def _point(request: PlanRequest, rate: float, slo: float, limit_s: float) -> Point:
    if limit_s < LEAST_S:
        return Point(rate, slo)
    found = plan(scaled(request, rate, slo), time_limit_s=limit_s, alternatives=False)
    if isinstance(found, Infeasible):
        return Point(rate, slo)
    return Point(rate, slo, found.usd_per_hour, found.p95_s, found.throughput_per_min)


def scaled(request: PlanRequest, rate: float, slo: float) -> PlanRequest:
    """The same request at another load and another objective, whatever it costs."""
    replace = msgspec.structs.replace
    classes = tuple(
        replace(one, rate_per_s=one.rate_per_s * rate, p95_s=one.p95_s * slo if one.p95_s is not None else None)
        for one in request.workload.classes
    )
    return replace(request, workload=replace(request.workload, classes=classes), max_usd_per_hour=None)


def _limit_memory(most: int) -> None:
    """A ceiling on address space, where the system has one to set."""
    if not most:
        return
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (most, most))
    except (ImportError, OSError, ValueError):
        return


def _end_with_parent(fd: int) -> None:
    while os.read(fd, 1):
        pass
    os._exit(1)


if __name__ == "__main__":
    main()
