"""Other people's systems, measured in the same run. Each lives in an environment of its own."""

import asyncio
import sys
from pathlib import Path
from typing import Final

import msgspec

RAY_PYTHON: Final = Path(".venv-ray/bin/python")  # made by `make bench`
LIMIT_S: Final = 300.0


class RayFigures(msgspec.Struct, frozen=True):
    """What bench/ray_chain.py prints."""

    throughput_c64: float
    http_throughput_c64: float
    latency_c1_p50_ms: float
    handoff_8mib_c8: float


async def ray_serve(seconds: float) -> RayFigures | None:
    """Ray Serve's figures; None where its environment is not there or it does not start."""
    if not RAY_PYTHON.exists():
        print("Ray Serve is left out: run `make bench`, which makes .venv-ray", file=sys.stderr)
        return None
    process = await asyncio.create_subprocess_exec(
        RAY_PYTHON,
        str(Path(__file__).with_name("ray_chain.py")),
        str(seconds),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        out, _ = await asyncio.wait_for(process.communicate(), LIMIT_S)
    except TimeoutError:
        process.kill()
        out = b""
    lines = [line for line in out.splitlines() if line.startswith(b"{")]
    if process.returncode or not lines:
        print(f"Ray Serve is left out: it ended with {process.returncode}", file=sys.stderr)
        return None
    return msgspec.json.decode(lines[-1], type=RayFigures)
