"""The head's hot path with zero-time stages: throughput with 64 in flight, latency with one, in process and over HTTP.

"In process" is the gateway's own way: its decoder, its checks, a durable row, the dispatcher; only HTTP itself is left out.
``python -m bench.hotpath [--seconds N]`` prints every figure beside its peer of the same run.
"""

import argparse
import asyncio
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import msgspec
from starlette.requests import Request

from bench import durable_hub
from bench.figures import Figure, ratio, rounded
from bench.load import Load, drive
from bench.peers import ray_serve
from bench.service import MIB8, ZERO, running
from disagctl.gateway.context import Context
from disagctl.gateway.fields import ImageBody
from disagctl.gateway.jobs import new_job, submit
from disagctl.gateway.limits import Limits
from disagctl.head import Head
from disagctl.settings import use_fast_loop

BODY = b'{"prompt": "a red circle", "size": "64x64", "num_inference_steps": 4}'
DECODER = msgspec.json.Decoder(ImageBody)
SCOPE = {"type": "http", "method": "POST", "path": "/v1/images/generations", "headers": []}
CLIENT = "bench.http_load"


def submitter(head: Head) -> Callable[[], Awaitable[None]]:
    """One request through the gateway's own path, until its result is durable."""
    ctx, asked = Context(head, Limits()), Request(SCOPE)

    async def one() -> None:
        job = await submit(ctx, new_job(ctx, asked, "image", DECODER.decode(BODY)))
        done = await head.wait(job.id, seen_version=None, timeout_s=60.0)
        if done is None or done.status != "succeeded":
            msg = f"a benchmark request ended as {done.status if done else 'nothing'}"
            raise RuntimeError(msg)

    return one


@dataclass(frozen=True, slots=True)
class HotPath:
    """What the product did."""

    many: Load  # 64 in flight
    single: Load
    http_per_s: float
    big: Load  # 8 in flight, 8 MiB from stage to stage


async def run(seconds: float) -> HotPath:
    """Every load, one after another."""
    async with running(ZERO) as head:
        one = submitter(head)
        await drive(one, 16, min(2.0, seconds))  # warm: code paths, credits, connections
        many, single = await drive(one, 64, seconds), await drive(one, 1, seconds)
        http_per_s = await http_load(head, 64, seconds)
    async with running(MIB8) as head:
        one = submitter(head)
        await drive(one, 8, min(2.0, seconds))
        return HotPath(many, single, http_per_s, await drive(one, 8, seconds))


async def measure(seconds: float) -> list[Figure]:
    """All figures of the hot path, each beside its peer of the same run."""
    ours, floor, ray = await run(seconds), await durable_hub.measure(seconds), await ray_serve(seconds)
    hub, p50_ms = "durable hub", ours.single.p50_ms
    figures = [
        Figure("throughput_c64", rounded(ours.many.per_s), "requests/s", 1000.0, "higher"),
        Figure("latency_c1_p50_ms", rounded(p50_ms), "ms", 5.0, "lower"),
        Figure("http_throughput_c64", rounded(ours.http_per_s), "requests/s", 500.0, "higher"),
        ratio("throughput_c64_vs_durable_hub", ours.many.per_s, floor.many.per_s, 0.4, "higher", hub),
        ratio("latency_c1_vs_durable_hub", p50_ms, floor.single.p50_ms, 2.0, "lower", hub),
        ratio("handoff_8mib_vs_hub", ours.big.per_s, floor.big.per_s, 1.5, "higher", "bare hub, in the clear"),
    ]
    if ray is not None:
        figures += [
            ratio("throughput_c64_vs_ray", ours.many.per_s, ray.throughput_c64, 40.0, "higher", "Ray Serve"),
            ratio("http_throughput_c64_vs_ray", ours.http_per_s, ray.http_throughput_c64, 7.0, "higher", "Ray Serve"),
            ratio("latency_c1_vs_ray", p50_ms, ray.latency_c1_p50_ms, 1 / 7, "lower", "Ray Serve"),
            ratio("handoff_8mib_vs_ray", ours.big.per_s, ray.handoff_8mib_c8, 5.0, "higher", "Ray Serve"),
        ]
    return figures


async def http_load(head: Head, in_flight: int, seconds: float) -> float:
    """Requests a second over HTTP keep-alive, from a process of its own."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", CLIENT, "127.0.0.1", str(head.record.http_port), str(in_flight), str(seconds),
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, _ = await process.communicate()
    return float(out)


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m bench.hotpath", description=__doc__)
    parser.add_argument("--seconds", type=float, default=8.0, help="duration of each load")
    args = parser.parse_args()
    use_fast_loop()
    for figure in asyncio.run(measure(args.seconds)):
        print(figure.line(), flush=True)


if __name__ == "__main__":
    main()
