"""The encoder cache with every prompt asked for twice, each time with another seed: ``python -m bench.cache``"""

import asyncio
import random

import msgspec
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
from planner.domain import Role

SPEC = """
name: bench
model:
  id: synthetic
  stages: {{encode: {{seconds: 0.02, out_bytes: 1048576}}, denoise: {{}}, decode: {{}}}}
workload: {{rate: 20/s, shapes: [{{size: 64x64}}]}}
infra: local
pipeline: {{encoder_cache: {cache}}}
"""
PROMPTS = 100
IN_FLIGHT = 8


async def picture(head: Head, prompt: str, seed: int) -> bytes:
    """One request through the gateway's own path; the picture."""
    ctx = Context(head, Limits())
    job = await submit(ctx, new_job(ctx, Request(SCOPE), "image", ImageBody(prompt=prompt, size="64x64", seed=seed)))
    done = await head.wait(job.id, seen_version=None, timeout_s=60.0)
    content = await head.content(done.items[0].id) if done is not None and done.status == "succeeded" else None
    if content is None or content.data is None:
        msg = "a benchmark request has no picture"
        raise RuntimeError(msg)
    return content.data


async def run(*, cache: bool) -> tuple[float, list[bytes]]:
    """Seconds that encode workers computed, and the pictures."""
    wanted = [f"prompt {i}" for i in range(PROMPTS)] * 2
    random.Random(0).shuffle(wanted)
    async with running(SPEC.format(cache=str(cache).lower())) as head:
        gate = asyncio.Semaphore(IN_FLIGHT)

        async def one(seed: int, prompt: str) -> bytes:
            async with gate:
                return await picture(head, prompt, seed)

        pictures = await asyncio.gather(*(one(seed, prompt) for seed, prompt in enumerate(wanted)))
        return sum(head.engine.tally.durations[Role(head.models()[0].name, "encode")]), pictures


async def measure() -> list[Figure]:
    """``cache_encode_share``: encode work with the cache over without. Raises RuntimeError when a byte differs."""
    (without, plain), (kept, cached) = await run(cache=False), await run(cache=True)
    if plain != cached:
        msg = "the cache changed a picture"
        raise RuntimeError(msg)
    return [
        Figure("cache_encode_share", rounded(kept / without), "fraction", 0.55, "lower", "seconds without", without)
    ]


if __name__ == "__main__":
    use_fast_loop()
    for figure in asyncio.run(measure()):
        print(msgspec.json.encode(figure).decode(), flush=True)
