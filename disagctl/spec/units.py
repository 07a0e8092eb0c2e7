"""Quantities as people write them: 180s, 12/min, 832x480, 1..16, 50GiB. Text to value and back.

Parsers raise ValueError whose message is an example of what is right.
"""

import math
import re
from collections.abc import Callable
from typing import Any, Final

import msgspec

NEVER: Final = "never"
MAX_DURATION_S: Final = 10 * 365 * 86400.0
MAX_TEXT: Final = 64
MAX_SIDE: Final = 16384
MAX_REPLICAS: Final = 4096

_SECONDS: Final = {"ms": 0.001, "s": 1.0, "sec": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_PER_MIN: Final = {
    "s": 60.0,
    "sec": 60.0,
    "second": 60.0,
    "m": 1.0,
    "min": 1.0,
    "minute": 1.0,
    "h": 1 / 60,
    "hour": 1 / 60,
}
_GIB: Final = {
    "": 1.0, "gib": 1.0, "mib": 1 / 1024, "tib": 1024.0, "gb": 1e9 / 2**30, "mb": 1e6 / 2**30, "tb": 1e12 / 2**30,
}  # fmt: skip
_NUMBER: Final = r"[0-9]+(?:\.[0-9]+)?"
_DURATION = re.compile(rf"(?:{_NUMBER} ?(?:ms|sec|s|min|m|h|d|w) ?)+")
_PART = re.compile(rf"({_NUMBER}) ?(ms|sec|s|min|m|h|d|w)")
_RATE = re.compile(rf"({_NUMBER}(?:e[-+]?[0-9]+)?) ?/ ?([a-z]+)")
_SIZE = re.compile(r"([0-9]{1,5}) ?[x×*] ?([0-9]{1,5})")
_RANGE = re.compile(r"([0-9]{1,5})(?: ?\.\. ?([0-9]{1,5}))?")
_MEMORY = re.compile(rf"({_NUMBER}) ?([a-z]*)")


class Range(msgspec.Struct, frozen=True):
    """From ``min`` to ``max``, both included."""

    min: int = 1
    max: int = 1


class Size(msgspec.Struct, frozen=True):
    """Width × height in pixels."""

    width: int
    height: int


def duration(text: str) -> float:
    """``90s``, ``1h30m``, ``7d`` or bare seconds → seconds."""
    text = text.lower()
    if re.fullmatch(_NUMBER, text):
        seconds = float(text)
    elif _DURATION.fullmatch(text):
        seconds = sum(float(n) * _SECONDS[unit] for n, unit in _PART.findall(text))
    else:
        raise ValueError("write a duration such as 180s, 30m or 7d")
    if not 0 < seconds <= MAX_DURATION_S:
        raise ValueError("a duration is more than nothing and at most ten years")
    return seconds


def duration_or_never(text: str) -> float | None:
    """The same, or ``never``."""
    if text.lower() == NEVER:
        return None
    try:
        return duration(text)
    except ValueError as err:
        raise ValueError(f"{err}, or never") from None


def rate_per_min(text: str) -> float:
    """``12/min``, ``2/s``, ``100/h`` → requests a minute."""
    match = _RATE.fullmatch(text.lower())
    if match is None or match[2] not in _PER_MIN:
        raise ValueError("write a rate such as 12/min or 2/s")
    rate = float(match[1]) * _PER_MIN[match[2]]
    if not 0 < rate <= 6e7:
        raise ValueError("a rate is more than nothing and at most a million a second")
    return rate


def size(text: str) -> Size:
    """``832x480``."""
    match = _SIZE.fullmatch(text.lower())
    if match is None:
        raise ValueError("write a size as WIDTHxHEIGHT, such as 832x480")
    width, height = int(match[1]), int(match[2])
    if not (1 <= width <= MAX_SIDE and 1 <= height <= MAX_SIDE):
        raise ValueError(f"a side has 1 to {MAX_SIDE} pixels")
    return Size(width, height)


def replica_range(text: str) -> Range:
    """``3`` or ``1..16``."""
    match = _RANGE.fullmatch(text)
    if match is None:
        raise ValueError("write a number such as 2, or a range such as 1..16")
    low, high = int(match[1]), int(match[2] or match[1])
    if not 1 <= low <= high <= MAX_REPLICAS:
        raise ValueError(f"replicas are at least 1, at most {MAX_REPLICAS}, and the smaller number comes first")
    return Range(low, high)


def memory_gib(text: str) -> float:
    """``50``, ``50GiB``, ``1TB`` → GiB."""
    match = _MEMORY.fullmatch(text.lower())
    if match is None or match[2] not in _GIB:
        raise ValueError("write an amount such as 50 or 50GiB")
    gib = float(match[1]) * _GIB[match[2]]
    if not 0 < gib <= 1e9:
        raise ValueError("an amount is more than nothing")
    return gib


PARSERS: Final[dict[str, Callable[[str], Any]]] = {
    "duration": duration,
    "duration_or_never": duration_or_never,
    "rate": rate_per_min,
    "size": size,
    "range": replica_range,
    "memory": memory_gib,
}


def parse(unit: str, text: str) -> Any:
    """Read ``text`` as ``unit``. Raises ValueError with an example of what is right."""
    return PARSERS[unit](text.strip()[:MAX_TEXT])


def show(unit: str, value: Any) -> str | int | float:
    """What ``parse`` reads back as exactly ``value``."""
    match unit:
        case "duration" | "duration_or_never":
            return NEVER if value is None else _exact_duration(value)
        case "rate":
            return f"{_digits(value)}/min"
        case "size":
            return f"{value.width}x{value.height}"
        case "range":
            return f"{value.min}..{value.max}" if value.max != value.min else int(value.min)
        case _:
            return int(value) if float(value).is_integer() else float(value)


def _exact_duration(seconds: float) -> str:
    for unit in ("d", "h", "m"):
        amount = seconds / _SECONDS[unit]
        if amount.is_integer():
            return f"{int(amount)}{unit}"
    return f"{_digits(seconds)}s"


def _digits(value: float) -> str:
    """Decimal digits without an exponent, exact when read back."""
    return (
        str(int(value)) if value.is_integer() else f"{value:.{max(17 - math.floor(math.log10(value)), 0)}f}".rstrip("0")
    )
