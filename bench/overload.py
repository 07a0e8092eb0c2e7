"""A stage far too slow for what is asked: ``python -m bench.overload [--seconds N]``

Decode takes twenty times as long as the stages before it, and a hundred requests a second come where five can be served.
Admission has to refuse the rest, and what the service holds has to stay the same. ``rss_growth`` is how far the memory of
head, agent and workers (shared memory included) gets from where it was once the queue was full.
"""

import argparse
import asyncio
import time
from pathlib import Path
from typing import Final

import psutil
from starlette.requests import Request

from bench.figures import Figure, rounded
from bench.fleet_load import steady
from bench.hotpath import BODY, DECODER, SCOPE
from bench.service import running
from disagctl.gateway.context import Context
from disagctl.gateway.errors import ApiError
from disagctl.gateway.jobs import new_job, submit
from disagctl.gateway.limits import Limits
from disagctl.head import Head
from disagctl.settings import use_fast_loop

FAST_S: Final = 0.01
SLOW_S: Final = 20 * FAST_S
OFFERED_PER_S: Final = 100.0
SAMPLE_S: Final = 0.5
WARM_S: Final = 15.0
TOO_MANY: Final = 429
SPEC: Final = f"""
name: bench
model:
  id: synthetic
  stages:
    encode: {{seconds: {FAST_S}, out_bytes: 8388608}}
    denoise: {{seconds: {FAST_S}, out_bytes: 8388608}}
    decode: {{seconds: {SLOW_S}}}
workload: {{rate: 5/s, shapes: [{{size: 64x64}}]}}
infra: local
pipeline: {{encoder_cache: false}}
api: {{max_queued: 200}}
"""


def memory_bytes(head: Head) -> int:
    """Of the service: this process, everything below it, and the shared memory they hold."""
    me = psutil.Process()
    total = 0
    for process in (me, *me.children(recursive=True)):
        try:
            info = process.memory_info()
        except psutil.NoSuchProcess:
            continue
        total += info.rss - info.shared
    shared = Path(head.record.shm_dir)
    return total + sum(path.stat().st_blocks * 512 for path in shared.rglob("*") if path.is_file())


class Admission:
    """Offers requests and counts the answers."""

    def __init__(self, head: Head) -> None:
        self._ctx = Context(head, Limits())
        self.accepted = 0
        self.refused_s: list[float] = []

    async def one(self) -> None:
        """Offer one, and do not wait for its result."""
        begin = time.perf_counter()
        try:
            await submit(self._ctx, new_job(self._ctx, Request(SCOPE), "image", DECODER.decode(BODY)))
        except ApiError as err:
            if err.status != TOO_MANY:
                raise
            self.refused_s.append(time.perf_counter() - begin)
        else:
            self.accepted += 1


async def run(seconds: float) -> list[Figure]:
    """The figures. Raises RuntimeError when nothing was refused."""
    async with running(SPEC) as head:
        await steady(Admission(head).one, OFFERED_PER_S, WARM_S)
        admission, samples = Admission(head), [memory_bytes(head)]

        async def watch() -> None:
            while True:
                await asyncio.sleep(SAMPLE_S)
                samples.append(memory_bytes(head))

        watching = asyncio.create_task(watch())
        await steady(admission.one, OFFERED_PER_S, seconds)
        watching.cancel()
    if not admission.refused_s:
        msg = "admission refused nothing although it was offered twenty times what can be served"
        raise RuntimeError(msg)
    offered = admission.accepted + len(admission.refused_s)
    growth = max(abs(sample / samples[0] - 1) for sample in samples)
    return [
        Figure("rss_growth", rounded(growth), "fraction", 0.1, "lower", "MB when full", rounded(samples[0] / 1e6)),
        Figure(
            "overload_refused",
            rounded(len(admission.refused_s) / offered),
            "fraction",
            None,
            "higher",
            "offered",
            offered,
        ),
        Figure("refusal_max_ms", rounded(max(admission.refused_s) * 1e3), "ms", 100.0, "lower"),
    ]


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m bench.overload", description=__doc__)
    parser.add_argument("--seconds", type=float, default=30.0, help="duration of the overload")
    args = parser.parse_args()
    use_fast_loop()
    for figure in asyncio.run(run(args.seconds)):
        print(figure.line(), flush=True)


if __name__ == "__main__":
    main()
