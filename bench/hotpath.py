"""The head's hot path with zero-time stages: throughput with 64 in flight, latency with one, in process and over HTTP.

"In process" is the gateway's own way: its decoder, its checks, a durable row, the dispatcher; only HTTP itself is left out.
"""

import asyncio
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import msgspec
from starlette.requests import Request

from bench.figures import Figure, rounded
from bench.service import ZERO, running
from disagctl.gateway.context import Context
from disagctl.gateway.fields import ImageBody
from disagctl.gateway.jobs import new_job, submit
from disagctl.gateway.limits import Limits
from disagctl.head import Head

BODY = b'{"prompt": "a red circle", "size": "64x64", "num_inference_steps": 4}'
DECODER = msgspec.json.Decoder(ImageBody)
SCOPE = {"type": "http", "method": "POST", "path": "/v1/images/generations", "headers": []}
CLIENT = "bench.http_load"


@dataclass(slots=True)
class Load:
    """What a run of the load came to."""

    per_s: float
    latencies_s: list[float]


async def drive(one: Callable[[], Awaitable[None]], in_flight: int, seconds: float) -> Load:
    """Keep ``in_flight`` calls going for ``seconds``; what is under way at the end does not count."""
    latencies: list[float] = []
    end = time.perf_counter() + seconds

    async def lane() -> None:
        while True:
            begin = time.perf_counter()
            await one()
            now = time.perf_counter()
            if now > end:
                return
            latencies.append(now - begin)

    await asyncio.gather(*(lane() for _ in range(in_flight)))
    return Load(len(latencies) / seconds, latencies)


def submitter(head: Head) -> Callable[[], Awaitable[None]]:
    """One request through the gateway's own path, until its result is durable."""
    ctx = Context(head, Limits())

    async def one() -> None:
        job = await submit(ctx, new_job(ctx, Request(SCOPE), "image", DECODER.decode(BODY)))
        done = await head.wait(job.id, seen_version=None, timeout_s=60.0)
        if done is None or done.status != "succeeded":
            msg = f"a benchmark request ended as {done.status if done else 'nothing'}"
            raise RuntimeError(msg)

    return one


async def measure(seconds: float) -> list[Figure]:
    """All figures of the hot path."""
    async with running(ZERO) as head:
        one = submitter(head)
        await drive(one, 16, min(2.0, seconds))  # warm: code paths, credits, connections
        many = await drive(one, 64, seconds)
        single = await drive(one, 1, seconds)
        http_per_s = await http_load(head, 64, seconds)
    return [
        Figure("throughput_c64", rounded(many.per_s), "requests/s", 1000.0, "higher"),
        Figure("latency_c1_p50_ms", rounded(statistics.median(single.latencies_s) * 1e3), "ms", 5.0, "lower"),
        Figure("http_throughput_c64", rounded(http_per_s), "requests/s", 250.0, "higher"),
    ]


async def http_load(head: Head, in_flight: int, seconds: float) -> float:
    """Requests a second over HTTP keep-alive, from a process of its own."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", CLIENT, "127.0.0.1", str(head.record.http_port), str(in_flight), str(seconds),
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, _ = await process.communicate()
    return float(out)
