"""The pipeline's own speed: does moving tensors cost throughput? ``python -m bench.pipeline [--seconds N]``

Real head, agent and workers on this machine; stages take 1 : 6 : 1 × 50 ms on 1 : 6 : 1 workers and hand on 8 MiB, so that
every stage alone could do 20 requests a second. *Jitter* delays transfers at random; ``sync`` is ``pipeline: {mode: sync}``,
in which a worker receives, computes and sends one after the other.
"""

import argparse
import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Literal

import msgspec

from bench.figures import Figure, rounded
from bench.hotpath import submitter
from bench.service import running
from disagctl.head import Head
from disagctl.settings import use_fast_loop
from stages.transport.faulty import Faults

UNIT_S = 0.05
MIB8 = 8 << 20
SPEC = """
name: bench
model:
  id: synthetic
  stages:
    encode: {{seconds: {unit}, out_bytes: {nbytes}}}
    denoise: {{seconds: {six}, steps: 6, out_bytes: {nbytes}}}
    decode: {{seconds: {unit}}}
workload: {{rate: 20/s, shapes: [{{size: 64x64}}]}}
infra: local
stages: {{denoise: {{replicas: 6}}}}
pipeline: {{mode: {mode}, encoder_cache: false}}
"""
JITTER = Faults(delay=0.2, delay_s=0.3, seed=1)  # 60 ms a transfer on average, to stages of 50 ms
BAD = Faults(delay=0.05, delay_s=0.2, loss=0.01, flip=0.005, tear=0.005, truncate=0.005, seed=2)
NARROW = Faults(bytes_per_s=10e6 / 8, seed=3)  # 10 Mbit/s into each worker
NARROW_BYTES = 250_000  # so that decode gets five a second
FAULTS = "DISAGCTL_TEST_FAULTS"
IN_FLIGHT = 64
WARM_S = 6.0


class Run(msgspec.Struct):
    """Requests a second, and what the slowest stage alone would do, judged by the compute times of the same run."""

    per_s: float
    bottleneck_per_s: float


@asynccontextmanager
async def faults(wanted: Faults | None) -> AsyncIterator[None]:
    """Workers started in the body make transfers fail like this."""
    if wanted is not None:
        os.environ[FAULTS] = msgspec.json.encode(wanted).decode()
    try:
        yield
    finally:
        os.environ.pop(FAULTS, None)


async def completions_per_s(head: Head, seconds: float) -> float:
    """Requests completed a second, once the pipeline is full."""
    one = submitter(head)
    ended: list[float] = []

    async def lane() -> None:
        while True:
            await one()
            ended.append(time.perf_counter())

    lanes = [asyncio.create_task(lane()) for _ in range(IN_FLIGHT)]
    try:
        await asyncio.sleep(WARM_S)
        begin = time.perf_counter()
        await asyncio.sleep(seconds)
        counted = [at for at in ended if at >= begin]
    finally:
        for task in lanes:
            task.cancel()
        await asyncio.gather(*lanes, return_exceptions=True)
    return (len(counted) - 1) / (counted[-1] - counted[0])


async def run(mode: str, seconds: float, wanted: Faults | None = None, nbytes: int = MIB8) -> Run:
    """A service of its own, loaded for so long."""
    spec = SPEC.format(unit=UNIT_S, six=6 * UNIT_S, mode=mode, nbytes=nbytes)
    async with faults(wanted), running(spec) as head:
        per_s = await completions_per_s(head, seconds)
        stages = head.status().stages
        return Run(per_s, min(stage.ready / (stage.seconds_per_request or UNIT_S) for stage in stages))


async def measure(seconds: float) -> list[Figure]:
    """Efficiency, and what jitter, faults and a narrow network leave of it."""
    clean = await run("async", seconds)
    jittered, bad = await run("async", seconds, JITTER), await run("async", seconds, BAD)
    narrow = await run("async", seconds, NARROW, NARROW_BYTES)
    sync, sync_jittered = await run("sync", seconds), await run("sync", seconds, JITTER)
    limit, narrow_limit = 1 / UNIT_S, NARROW.bytes_per_s / NARROW_BYTES

    def share(name: str, value: float, of: float, what: str, bar: float | None = None) -> Figure:
        better: Literal["higher", "lower"] = "lower" if name == "jitter_sync_kept" else "higher"
        return Figure(name, rounded(value / of), "fraction", bar, better, what, rounded(of))

    return [
        share("efficiency_161", clean.per_s, limit, "the bottleneck's rate", 0.98),
        share("efficiency_161_measured", clean.per_s, clean.bottleneck_per_s, "the same, by measured compute times"),
        share("efficiency_161_sync", sync.per_s, limit, "the bottleneck's rate"),
        share("jitter_sync_kept", sync_jittered.per_s, sync.per_s, "sync without jitter", 0.7),
        share("jitter_async_kept", jittered.per_s, clean.per_s, "async without jitter", 0.97),
        share("faults_kept", bad.per_s, clean.per_s, "async without faults", 0.9),
        share("narrow_bound", narrow.per_s, narrow_limit, "10 Mbit/s into each worker", 0.85),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.pipeline", description=__doc__)
    parser.add_argument("--seconds", type=float, default=30.0, help="duration of each of the six runs")
    args = parser.parse_args()
    use_fast_loop()
    for figure in asyncio.run(measure(args.seconds)):
        print(figure.line(), flush=True)


if __name__ == "__main__":
    main()
