"""The one module of ``disagctl`` that reads the environment."""

import asyncio
import gc
import os
from typing import Final

GARBAGE: Final = 20_000  # objects made and not yet freed that start a look for cycles among the young


def home_override() -> str | None:
    """``DISAGCTL_HOME``: where state lives instead of the platform's user state directory."""
    return os.environ.get("DISAGCTL_HOME") or None


def asked_columns() -> bool:
    """Whether somebody said how wide the output may be."""
    return os.environ.get("COLUMNS", "").isdecimal()


def child_environment() -> dict[str, str]:
    """Environment for the processes we start: ours, with one torch thread a process and unbuffered logs."""
    env = dict(os.environ)
    env.setdefault("OMP_NUM_THREADS", "1")
    env.setdefault("MKL_NUM_THREADS", "1")
    env["PYTHONUNBUFFERED"] = "1"
    return env


def secret(name: str) -> str | None:
    """A secret the spec names (``secrets: [HF_TOKEN]``)."""
    return os.environ.get(name) or None


def collect_rarely() -> None:
    """Leave what has been loaded out of garbage collection, and look at the rest less often: requests leave no cycles."""
    gc.freeze()
    gc.set_threshold(GARBAGE, 20, 50)


def use_fast_loop() -> None:
    """uvloop where it is installed, unless ``DISAGCTL_LOOP=asyncio`` asks for the standard one."""
    if os.environ.get("DISAGCTL_LOOP") == "asyncio":
        return
    try:
        import uvloop  # optional, and slow to import for a CLI that needs no loop
    except ImportError:
        return
    asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())


def prepare_sky() -> None:
    """Before SkyPilot is imported: it reports nobody's usage unless somebody asked it to."""
    os.environ.setdefault("SKYPILOT_DISABLE_USAGE_COLLECTION", "1")
