"""What a worker takes beyond what it has to: ``python -m bench.worker_memory [--seconds N]``

``worker_mb`` is the memory of the largest of three busy synthetic workers that hand on 8 MiB, without what a process has
that merely imported the same modules, and without tensor slots in shared memory. What the synthetic model keeps is counted.
"""

import argparse
import asyncio
import subprocess
import sys
from typing import Final

import psutil

from bench.figures import Figure, rounded
from bench.hotpath import submitter
from bench.load import drive
from bench.service import MIB8, running
from disagctl.head import Head
from disagctl.settings import use_fast_loop

IDLE: Final = (
    "import sys, stages.worker, stages.models.registry, stages.models.synthetic; print(flush=True); sys.stdin.read()"
)


def own_bytes(pid: int) -> int:
    """A process's memory that is no shared mapping: neither code nor tensors."""
    info = psutil.Process(pid).memory_info()
    return int(info.rss - info.shared)


def import_bytes() -> int:
    """The same of a process that only imported what a worker does."""
    with subprocess.Popen([sys.executable, "-c", IDLE], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()
        taken = own_bytes(process.pid)
        process.stdin.close()
    return taken


async def run(seconds: float) -> Figure:
    """The figure, after so many seconds of load."""

    def pids(head: Head) -> list[int]:
        return [worker.pid for worker in head.engine.roster.workers.values()]

    async with running(MIB8) as head:
        await drive(submitter(head), 8, seconds)
        taken = max(own_bytes(pid) for pid in pids(head))
    imports = import_bytes()
    mb = rounded((taken - imports) / 1e6)
    return Figure("worker_mb", mb, "MB", 100.0, "lower", "imports alone, MB", rounded(imports / 1e6))


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m bench.worker_memory", description=__doc__)
    parser.add_argument("--seconds", type=float, default=8.0, help="duration of the load")
    args = parser.parse_args()
    use_fast_loop()
    print(asyncio.run(run(args.seconds)).line(), flush=True)


if __name__ == "__main__":
    main()
