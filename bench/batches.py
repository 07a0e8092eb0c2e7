"""What batches give where the model computes several requests faster than one after another: ``python -m bench.batches``

The synthetic model's denoise stage takes 0.1 s alone and 0.1 s · (1 + 0.1 · (n - 1)) for n at once, about what images of 512²
cost on a large GPU. Both runs are the same load on the same service, with and without batches, and give the same bytes.
"""

import asyncio
import time

import msgspec

from bench.cache import picture
from bench.figures import Figure, ratio, rounded
from bench.service import running
from disagctl.settings import use_fast_loop

SPEC = """
name: bench
model:
  id: synthetic
  stages: {{encode: {{}}, denoise: {{seconds: 0.1, steps: 4, batch_growth: 0.1}}, decode: {{}}}}
workload: {{rate: 20/s, shapes: [{{size: 64x64}}]}}
infra: local
pipeline: {{batch: {{max: {most}}}}}
"""
REQUESTS = 160
IN_FLIGHT = 16
MOST = 8


async def run(most: int) -> tuple[float, float, list[bytes]]:
    """Requests a second, the mean size of denoise batches, and the pictures."""
    async with running(SPEC.format(most=most)) as head:
        gate = asyncio.Semaphore(IN_FLIGHT)

        async def one(seed: int) -> bytes:
            async with gate:
                return await picture(head, f"prompt {seed}", seed)

        begin = time.perf_counter()
        pictures = await asyncio.gather(*map(one, range(REQUESTS)))
        took = time.perf_counter() - begin
        size = next(stage.batch for stage in head.status().stages if stage.stage == "denoise")
        return REQUESTS / took, size or 0.0, list(pictures)


async def measure() -> list[Figure]:
    """``batch_throughput``: with batches of up to 8 over without. Raises RuntimeError when a byte differs."""
    alone, _, plain = await run(1)
    together, size, batched = await run(MOST)
    if plain != batched:
        msg = "a batch changed a picture"
        raise RuntimeError(msg)
    return [
        ratio("batch_throughput", together, alone, 1.5, "higher", "requests/s one by one"),
        Figure("batch_size", rounded(size), "requests", None, "higher"),
    ]


if __name__ == "__main__":
    use_fast_loop()
    for figure in asyncio.run(measure()):
        print(msgspec.json.encode(figure).decode(), flush=True)
