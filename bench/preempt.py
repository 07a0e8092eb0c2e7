"""What it costs to let short requests through long ones: ``python -m bench.preempt``

Two parts. A service of synthetic stages with two denoise workers, both busy with long requests: how long a short one waits
beyond its own time, in steps of the long ones. And a tiny Wan on this processor: what stopping a video between two steps and
going on with it costs, in its own steps, with the job kept and from its snapshot.
"""

import argparse
import asyncio
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from starlette.requests import Request

from bench.figures import Figure, rounded
from bench.hotpath import SCOPE
from bench.service import running
from disagctl.gateway.context import Context
from disagctl.gateway.fields import ImageBody
from disagctl.gateway.jobs import new_job, submit
from disagctl.gateway.limits import Limits
from disagctl.head import Head
from disagctl.settings import use_fast_loop
from stages.models.base import Suspendable
from stages.models.registry import choose
from stages.parcel import copied, seal
from stages.protocol import ModelSource
from tests.tiny import ensure

STEP_S = 0.2
SPEC = """
name: bench
model:
  id: synthetic
  stages: {encode: {seconds: 0.01}, denoise: {seconds_per_step: 0.2}, decode: {seconds: 0.01}}
workload:
  rate: 1/s
  shapes: [{share: 0.9, size: 8x8, slo: {p95: 60s}}, {share: 0.1, size: 64x64, slo: {p95: 6000s}}]
infra: local
policy: {dispatch: {kind: edf, preempt: PREEMPT, max_pauses: 1000}, scaling: static}
stages: {denoise: {replicas: 2}}
"""
OWN_S = 0.01 + STEP_S + 0.01
SHORTS = 12


async def ask(head: Head, size: str, steps: int, seed: int) -> float:
    """One request; seconds until its result."""
    ctx, begin = Context(head, Limits()), time.perf_counter()
    body = ImageBody(prompt="a cat", size=size, seed=seed, num_inference_steps=steps)
    job = await submit(ctx, new_job(ctx, Request(SCOPE), "image", body))
    done = await head.wait(job.id, seen_version=None, timeout_s=600.0)
    if done is None or done.status != "succeeded":
        msg = "a benchmark request has no picture"
        raise RuntimeError(msg)
    return time.perf_counter() - begin


async def waits(*, preempt: bool) -> list[float]:
    """How long short requests waited beyond their own time, in steps of the long ones that they came upon."""
    async with running(SPEC.replace("PREEMPT", str(preempt).lower())) as head:
        long = [asyncio.create_task(ask(head, "64x64", 40, seed)) for seed in (1, 2)]
        await asyncio.sleep(1.0)
        found = [await ask(head, "8x8", 1, 10 + i) for i in range(SHORTS if preempt else 1)]
        await asyncio.gather(*long)
    return [(seconds - OWN_S) / STEP_S for seconds in found]


def median_s(call: Callable[[], Any], times: int = 9) -> float:
    """Of several calls."""
    taken = []
    for _ in range(times):
        begin = time.perf_counter()
        call()
        taken.append(time.perf_counter() - begin)
    return statistics.median(taken)


def costs(folder: Path) -> dict[str, float]:
    """Seconds of a step, of a pause and of both ways to resume; bytes of the snapshot."""
    source = ModelSource("wan", str(folder))
    adapter = choose(source)
    params = {**adapter.card(source, folder).defaults, "prompt": "a cat", "seed": 7}
    params |= {"width": 128, "height": 128, "num_frames": 33, "num_inference_steps": 50}
    encoding = adapter.load(source, "encode", "cpu").start(params, None)
    encoding.step()
    made = encoding.finish()
    model = adapter.load(source, "denoise", "cpu")
    job = model.start(params, made)  # type: ignore[arg-type]  # an encode stage makes a parcel
    if not isinstance(job, Suspendable):
        msg = "a denoise job of Wan can be suspended"
        raise TypeError(msg)
    step_s = median_s(job.step)

    def pause() -> None:
        copied(job.snapshot())
        job.suspend()

    def resume() -> None:
        job.suspend()
        begin.append(time.perf_counter())
        job.revive()
        begin.append(time.perf_counter())

    begin: list[float] = []
    pause_s = median_s(pause)
    job.revive()
    for _ in range(9):
        resume()
    here_s = statistics.median(b - a for a, b in zip(begin[::2], begin[1::2], strict=True))
    snapshot = seal(copied(job.snapshot()))
    there_s = median_s(lambda: model.resume(params, snapshot))
    return {"step": step_s, "pause": pause_s, "here": here_s, "elsewhere": there_s, "bytes": float(snapshot.nbytes)}


def main() -> None:
    """Print the figures."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    use_fast_loop()
    alone, pressed = asyncio.run(waits(preempt=False)), sorted(asyncio.run(waits(preempt=True)))
    with TemporaryDirectory() as scratch:
        cost = costs(ensure(Path(scratch), "wan"))
    step_s = cost["step"]
    for figure in (
        Figure("preempt_wait_steps", rounded(pressed[-1]), "steps", 2.0, "lower", "without pausing", rounded(alone[0])),
        Figure("preempt_wait_steps_median", rounded(statistics.median(pressed)), "steps", None, "lower"),
        Figure(
            "pause_cost_steps",
            rounded(cost["pause"] / step_s),
            "steps",
            None,
            "lower",
            "ms a step",
            rounded(step_s * 1e3),
        ),
        Figure("resume_here_steps", rounded(cost["here"] / step_s), "steps", None, "lower"),
        Figure("resume_elsewhere_steps", rounded(cost["elsewhere"] / step_s), "steps", 1.0, "lower"),
        Figure("snapshot_kib", rounded(cost["bytes"] / 1024), "KiB", None, "lower"),
    ):
        print(figure.line(), flush=True)


if __name__ == "__main__":
    main()
