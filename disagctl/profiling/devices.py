"""Which processor to measure on, and what rows call it."""

from typing import Final

import msgspec

from disagctl.errors import InfeasibleError, UsageError
from planner.facts.names import canonical
from stages.hardware import gpus
from stages.protocol import GpuInfo

CPU: Final = "CPU"


class Device(msgspec.Struct, frozen=True):
    """``name``: as rows call it. ``torch``: as the process that was shown only this GPU calls it."""

    name: str
    index: int | None = None

    @property
    def torch(self) -> str:
        """``cpu`` or ``cuda:0``."""
        return "cpu" if self.index is None else "cuda:0"


def find_devices(asked: str | None) -> list[Device]:
    """``cpu``, ``cuda:1`` or names of GPUs, separated by commas; None: the first GPU, else the processor."""
    here = gpus()
    if asked is None:
        return [_gpu(here[0]) if here else Device(CPU)]
    return [_find(part.strip(), here) for part in asked.split(",") if part.strip()] or find_devices(None)


def _find(asked: str, here: tuple[GpuInfo, ...]) -> Device:
    if asked.lower() == "cpu":
        return Device(CPU)
    if asked.lower().startswith("cuda"):
        _, _, number = asked.partition(":")
        if number and not number.isdecimal():
            raise UsageError(f"{asked!r} is not a device", next="cpu, cuda:0, or the name of a GPU such as H100")
        wanted = int(number or 0)  # counted among those we may use, as torch counts them
        if wanted >= len(here):
            raise InfeasibleError(f"there is no {asked} here", why=_has(here), code="no_device")
        return _gpu(here[wanted])
    name = canonical(asked)
    if name is None:
        raise UsageError(f"{asked!r} is not a device", next="cpu, cuda:0, or the name of a GPU such as H100")
    found = next((gpu for gpu in here if canonical(gpu.name) == name), None)
    if found is None:
        raise InfeasibleError(
            f"there is no {name} here",
            why=_has(here),
            next="rent one with --infra, or run disagctl profile on a machine that has one",
            code="no_device",
        )
    return _gpu(found)


def _gpu(info: GpuInfo) -> Device:
    return Device(canonical(info.name) or info.name.removeprefix("NVIDIA ").replace(" ", "-"), info.index)


def _has(here: tuple[GpuInfo, ...]) -> str:
    return f"this machine has {', '.join(gpu.name for gpu in here) or 'no NVIDIA GPU'}"
