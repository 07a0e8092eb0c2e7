"""A head with a thousand nodes: ``python -m bench.fleet_load [--nodes N --rate R --seconds S --queued Q]``

The head is real and in this process; agents and workers are played by :mod:`bench.fleet`, each over a CURVE socket of its
own. *Dispatch* is the time from a stage's Done leaving its worker to the request's next task arriving at the next one.
"""

import argparse
import asyncio
import gc
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec
import psutil
from starlette.requests import Request

from bench.figures import Figure, rounded
from bench.fleet import Boot
from bench.handoff import keys
from bench.hotpath import BODY, DECODER, SCOPE, submitter
from bench.service import ZERO, running
from disagctl.gateway.context import Context
from disagctl.gateway.jobs import new_job, submit
from disagctl.gateway.limits import Limits
from disagctl.head import Head
from disagctl.settings import use_fast_loop

STAGES: Final = 3
FEW: Final = 20  # workers of each stage but denoise
JOIN_S: Final = 120.0
SLICE_S: Final = 0.01
WARM_S: Final = 3.0
CLIENTS: Final = 32
SPEC: Final = ZERO + "api: {max_queued: 100000}\n"


class FleetProcess:
    """The process that plays the nodes."""

    def __init__(self, count: int) -> None:
        self._nodes = [(f"sim{n}", *keys()) for n in range(count)]
        self._process: subprocess.Popen[str] | None = None

    def start(self, head: Head) -> None:
        """Put every node's key on the head's list, and begin to connect. The head itself launches nothing."""
        allowed = {public: node for node, public, _ in self._nodes}

        async def nothing() -> None: ...

        head.nodes.reconcile = nothing  # type: ignore[method-assign]  # these machines are not its own
        head.hub.allow(allowed)
        head.engine.set_peers(tuple(allowed))
        boot = Boot(f"tcp://127.0.0.1:{head.record.hub_port}", head.pair.public, self._nodes)
        command = [sys.executable, "-m", "bench.fleet"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._tell(msgspec.json.encode(boot).decode())

    def hold(self) -> None:
        """Workers keep what they are given from now on."""
        self._tell("hold")

    async def report(self) -> tuple[int, list[float]]:
        """Tasks, and seconds of dispatch, since the last report."""
        assert self._process is not None
        assert self._process.stdout is not None
        self._tell("report")
        line = await asyncio.to_thread(self._process.stdout.readline)
        return msgspec.json.decode(line, type=tuple[int, list[float]])

    def stop(self) -> None:
        """End it."""
        if self._process is not None:
            assert self._process.stdin is not None
            self._process.stdin.close()
            self._process.wait(10.0)

    def _tell(self, line: str) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()


async def until(what: Callable[[], bool], limit_s: float) -> None:
    """Wait for it."""
    async with asyncio.timeout(limit_s):
        while not what():  # noqa: ASYNC110  # nobody signals it
            await asyncio.sleep(0.1)


async def steady(one: Callable[[], Awaitable[None]], per_s: float, seconds: float) -> None:
    """Begin so many calls a second, however long each takes; returns when the last has ended."""
    begin, started = time.perf_counter(), 0
    async with asyncio.TaskGroup() as group:
        while (passed := time.perf_counter() - begin) < seconds:
            while started < passed * per_s:
                started += 1
                group.create_task(one())  # type: ignore[arg-type]
            await asyncio.sleep(SLICE_S)


async def fill(head: Head, count: int) -> None:
    """Have ``count`` requests accepted that nobody works on."""
    ctx, left = Context(head, Limits()), iter(range(count))

    async def client() -> None:
        for _ in left:
            await submit(ctx, new_job(ctx, Request(SCOPE), "image", DECODER.decode(BODY)))

    await asyncio.gather(*(client() for _ in range(CLIENTS)))


async def run(nodes: int, rate: float, seconds: float, queued: int) -> list[Figure]:
    """All figures of the fleet."""
    fleet, me = FleetProcess(nodes), psutil.Process()
    try:
        async with running(SPEC, JOIN_S, fleet.start) as head:
            await until(lambda: len(head.engine.roster.nodes) == nodes, JOIN_S)
            few = min(FEW, nodes // STAGES)
            await head.scale({"encode": few, "denoise": nodes - 2 * few, "decode": few}, auto=False)
            await until(lambda: len(head.engine.ledger.workers) >= nodes, JOIN_S)
            one = submitter(head)
            await steady(one, rate / STAGES, WARM_S)
            await fleet.report()
            begin_s, before = time.perf_counter(), sum(me.cpu_times()[:2])
            await steady(one, rate / STAGES, seconds)
            passed_s, cpu_s = time.perf_counter() - begin_s, sum(me.cpu_times()[:2]) - before
            tasks, latencies_s = await fleet.report()
            fleet.hold()
            role = next(iter(head.engine.roster.wanted))
            while (missing := queued - head.engine.ledger.queued(role)) > 0:
                await fill(head, missing)
            gc.collect()
            rss_mb = me.memory_info().rss / 1e6
    finally:
        fleet.stop()
    p99_ms = statistics.quantiles(latencies_s, n=100)[-1] * 1e3
    load = f"{nodes} nodes, tasks/s"
    per_s = rounded(tasks / passed_s)
    return [
        Figure("dispatch_p99_ms", rounded(p99_ms), "ms", 50.0, "lower", load, per_s),
        Figure("dispatch_p50_ms", rounded(statistics.median(latencies_s) * 1e3), "ms", None, "lower", load, per_s),
        Figure("head_cores", rounded(cpu_s / passed_s), "cores", 1.0, "lower", load, per_s),
        Figure("head_mb", rounded(rss_mb), "MB", 300.0, "lower", f"{nodes} nodes, requests queued", float(queued)),
    ]


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m bench.fleet_load", description=__doc__)
    parser.add_argument("--nodes", type=int, default=1000, help="agents, with one worker each")
    parser.add_argument("--rate", type=float, default=500.0, help="tasks a second")
    parser.add_argument("--seconds", type=float, default=20.0, help="duration of the load")
    parser.add_argument("--queued", type=int, default=10_000, help="requests that wait when the memory is measured")
    args = parser.parse_args()
    use_fast_loop()
    for figure in asyncio.run(run(args.nodes, args.rate, args.seconds, args.queued)):
        print(figure.line(), flush=True)


if __name__ == "__main__":
    main()
