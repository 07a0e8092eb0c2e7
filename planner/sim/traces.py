"""Traces to try policies on. Every generator is a pure function of its arguments; the same seed gives the same requests.

The paper's trace and the flips are what DisagFusion (arXiv 2605.25550) shows; gamma gaps with a coefficient of variation of
1, 2 or 4 and the two-state Markov-modulated Poisson process are the field's usual bursts; the diurnal profile has the shape
of real diffusion traffic (Poisson within the hour, strongly diurnal: Alibaba GenTD26, SoCC 2025).
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from planner.domain import Shape
from planner.sim.rng import Rng
from planner.sim.scenario import Arriving, Trace

VIDEO4: Final = Shape(1280, 720, 81, 4)
VIDEO1: Final = Shape(1280, 720, 81, 1)
IMAGE: Final = Shape(1024, 1024, 1, 8)
# Requests an hour over the day, as shares of the peak: two humps, near silence in the morning.
HOURS: Final = (
    1.0, 0.85, 0.6, 0.42, 0.3, 0.2, 0.12, 0.07, 0.04, 0.02, 0.02, 0.03, 0.04, 0.05, 0.1, 0.25, 0.55, 0.8, 0.78, 0.6, 0.62, 0.85,
    0.97, 1.0,
)  # fmt: skip

PAPER: Final = (VIDEO4, VIDEO1)

Shapes = tuple[Shape, Shape]
Pick = Callable[[float, Rng], Shape]
Rate = Callable[[float], float]
Generator = Callable[..., Trace]
"""(model, shapes, per_min, seed) → Trace; all but the model may be left out"""


def even(duration_s: float, rate: Rate, pick: Pick, rng: Rng) -> list[tuple[float, Shape]]:
    """One after the other at the rate of the moment, evenly spaced: saturating load without luck."""
    rows: list[tuple[float, Shape]] = []
    at = 0.0
    while at <= duration_s:
        rows.append((at, pick(at, rng)))
        at += 1 / rate(at)
    return rows


def poisson(duration_s: float, rate: Rate, most: float, pick: Pick, rng: Rng) -> list[tuple[float, Shape]]:
    """A Poisson process with a varying rate, by thinning (Lewis and Shedler, 1979). ``most``: an upper bound of the rate."""
    rows: list[tuple[float, Shape]] = []
    at = rng.exponential(1 / most)
    while at <= duration_s:
        if rng.uniform() * most <= rate(at):
            rows.append((at, pick(at, rng)))
        at += rng.exponential(1 / most)
    return rows


def always(shape: Shape) -> Pick:
    """The same shape."""
    return lambda _at, _rng: shape


def paper(model: str, shapes: Shapes = PAPER, per_min: float = 5.5, seed: int = 1, phase_s: float = 900.0) -> Trace:
    """A quarter of an hour of the first shape, then the second one, each a little more than eight GPUs can serve: the second
    comes as much more often as it takes fewer steps, up to three times."""
    more = min(shapes[0].steps / shapes[1].steps, 2.75)
    rows = even(
        2 * phase_s,
        lambda at: (per_min if at < phase_s else more * per_min) / 60,
        lambda at, _: shapes[0] if at < phase_s else shapes[1],
        Rng(seed, "paper"),
    )
    return _trace("paper", model, rows, (phase_s,))


def flips(
    model: str,
    shapes: Shapes = PAPER,
    per_min: float = 6.0,
    seed: int = 1,
    duration_s: float = 7200.0,
    period_s: float = 60.0,
) -> Trace:
    """The shape changes every period; Poisson arrivals."""

    def pick(at: float, _: Rng) -> Shape:
        return shapes[int(at // period_s) % 2]

    rows = poisson(duration_s, lambda _: per_min / 60, per_min / 60, pick, Rng(seed, "flips"))
    return _trace("flips", model, rows, tuple(period_s * n for n in range(1, int(duration_s // period_s))))


def mixes(
    model: str, shapes: Shapes = (VIDEO4, IMAGE), per_min: float = 8.0, seed: int = 1, duration_s: float = 5400.0
) -> Trace:
    """Poisson arrivals of two shapes; the first one's share is a tenth, then six tenths, then two."""
    shares = (0.1, 0.6, 0.2)
    part_s = duration_s / len(shares)

    def pick(at: float, draw: Rng) -> Shape:
        return shapes[0] if draw.uniform() < shares[min(int(at // part_s), 2)] else shapes[1]

    rows = poisson(duration_s, lambda _: per_min / 60, per_min / 60, pick, Rng(seed, "mixes"))
    return _trace("mixes", model, rows, (part_s, 2 * part_s))


def diurnal(model: str, shapes: Shapes = PAPER, per_min: float = 10.0, seed: int = 1, days: float = 1.0) -> Trace:
    """Poisson within the hour, the hours of a day apart by a factor of fifty; ``per_min`` at the peak. The second shape."""

    def rate(at: float) -> float:
        hour = at / 3600 % 24
        low, high = HOURS[int(hour)], HOURS[(int(hour) + 1) % 24]
        return (low + (high - low) * (hour - int(hour))) * per_min / 60

    rows = poisson(days * 86400, rate, per_min / 60, always(shapes[1]), Rng(seed, "diurnal"))
    return _trace("diurnal", model, rows, tuple(3600.0 * n for n in range(1, int(days * 24))))


def gamma(
    model: str, shapes: Shapes = PAPER, per_min: float = 6.0, seed: int = 1, cv: float = 2.0, duration_s: float = 3600.0
) -> Trace:
    """Gaps from a gamma distribution with that coefficient of variation (1: Poisson). The second shape."""
    rng = Rng(seed, "gamma")
    rows: list[tuple[float, Shape]] = []
    at = rng.gamma(1 / cv**2, 60 / per_min)
    while at <= duration_s:
        rows.append((at, shapes[1]))
        at += rng.gamma(1 / cv**2, 60 / per_min)
    return _trace(f"gamma{cv:g}", model, rows, ())


def mmpp(
    model: str,
    shapes: Shapes = PAPER,
    per_min: float = 6.0,
    seed: int = 1,
    dwell_s: float = 300.0,
    duration_s: float = 5400.0,
) -> Trace:
    """A Poisson process that changes between half and double the rate after exponential times. The second shape."""
    rng = Rng(seed, "mmpp")
    rows: list[tuple[float, Shape]] = []
    changes: list[float] = []
    at, high = 0.0, False
    while at < duration_s:
        end = min(at + rng.exponential(dwell_s), duration_s)
        mean = 60 / (per_min * (2.0 if high else 0.5))
        step = at + rng.exponential(mean)
        while step < end:
            rows.append((step, shapes[1]))
            step += rng.exponential(mean)
        at, high = end, not high
        changes.append(at)
    return _trace("mmpp", model, rows, tuple(changes[:-1]))


def steps(
    model: str, shapes: Shapes = PAPER, per_min: float = 10.0, seed: int = 1, duration_s: float = 5400.0
) -> Trace:
    """The rate steps up from three tenths and down to four; Poisson arrivals of the second shape."""
    parts = (0.3, 1.0, 0.4)
    part_s = duration_s / len(parts)

    def rate(at: float) -> float:
        return parts[min(int(at // part_s), 2)] * per_min / 60

    rows = poisson(duration_s, rate, per_min / 60, always(shapes[1]), Rng(seed, "steps"))
    return _trace("steps", model, rows, (part_s, 2 * part_s))


GENERATORS: Final[dict[str, Generator]] = {
    "paper": paper,
    "flips": flips,
    "mixes": mixes,
    "diurnal": diurnal,
    "gamma1": partial(gamma, cv=1.0),
    "gamma2": partial(gamma, cv=2.0),
    "gamma4": partial(gamma, cv=4.0),
    "mmpp": mmpp,
    "steps": steps,
}


def _trace(name: str, model: str, rows: Sequence[tuple[float, Shape]], changes: tuple[float, ...]) -> Trace:
    return Trace(name, tuple(Arriving(round(at, 3), model, shape) for at, shape in rows), changes)
