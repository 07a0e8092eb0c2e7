"""A real service in this process: the head on our event loop, agent and workers as processes of their own, CURVE on."""

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from disagctl.head import Head
from disagctl.lifecycle import create
from disagctl.settings import collect_rarely
from disagctl.spec import parse_spec
from disagctl.state import paths

ZERO = """
name: bench
model: {id: synthetic, stages: {encode: {}, denoise: {}, decode: {}}}
workload: {rate: 1000/s, shapes: [{size: 64x64}]}
infra: local
pipeline: {encoder_cache: false}
"""

# No stage looks at the 8 MiB: neither do those of the peers.
MIB8 = ZERO.replace(
    "encode: {}, denoise: {}, decode: {}",
    "encode: {out_bytes: 8388608}, denoise: {out_bytes: 8388608, reads: false}, decode: {reads: false}",
)


@asynccontextmanager
async def running(
    text: str, ready_s: float = 180.0, prepare: Callable[[Head], None] | None = None
) -> AsyncIterator[Head]:
    """Bring a service up from a spec's text in a home of its own; take it down and leave nothing.

    ``prepare`` sees the head when its sockets are bound and nothing runs yet.
    """
    with tempfile.TemporaryDirectory(prefix="disagctl-bench-") as home:
        before = os.environ.get("DISAGCTL_HOME")
        os.environ["DISAGCTL_HOME"] = home
        try:
            spec = parse_spec(text, base=Path(home))
            where = paths(spec.name)
            create(where, spec)
            head = Head(where)
            if prepare is not None:
                prepare(head)
            collect_rarely()  # as the head's own process does
            task = asyncio.create_task(head.run())
            try:
                await _ready(head, task, ready_s)
                yield head
            finally:
                await head.stop(discard=True)
                await task
        finally:
            if before is None:
                del os.environ["DISAGCTL_HOME"]
            else:
                os.environ["DISAGCTL_HOME"] = before


async def _ready(head: Head, task: "asyncio.Task[None]", limit_s: float) -> None:
    async with asyncio.timeout(limit_s):
        while head.status().state != "ready":
            if task.done():
                task.result()
            await asyncio.sleep(0.05)
