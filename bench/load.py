"""A closed load: so many calls in flight, for so long."""

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass


@dataclass(slots=True)
class Load:
    """What a run of the load came to."""

    per_s: float
    latencies_s: list[float]

    @property
    def p50_ms(self) -> float:
        """Median latency."""
        return statistics.median(self.latencies_s) * 1e3

    @property
    def p99_ms(self) -> float:
        """99th percentile of the latency."""
        return statistics.quantiles(self.latencies_s, n=100)[-1] * 1e3


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
