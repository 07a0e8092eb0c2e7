"""What is wanted of a profiling run, where it is, and what it gave."""

import msgspec

from disagctl.profiling.fit import Law
from planner.domain import Profile, Shape
from stages.profile_wire import Progress


class Options(msgspec.Struct, frozen=True):
    """``stage``: measure only this one (those before it run once, for its inputs). ``why_random``: empty for real weights."""

    shapes: tuple[Shape, ...]
    stage: str | None = None
    repeats: int = 3
    why_random: str = ""
    origin: str = ""
    peak_tflops: float | None = None


class Skipped(msgspec.Struct, frozen=True):
    """A shape that a stage could not compute, and why. kind: memory | request."""

    stage: str
    shape: Shape
    kind: str
    why: str


class Outcome(msgspec.Struct):
    """What one device gave."""

    device: str
    rows: list[Profile] = msgspec.field(default_factory=list)
    laws: list[Law] = msgspec.field(default_factory=list)
    skipped: list[Skipped] = msgspec.field(default_factory=list)


class Moment(msgspec.Struct, frozen=True):
    """Where the work is, for whoever watches. ``seconds``: set once the shape is measured."""

    device: str
    stage: str
    shape: Shape | None = None
    progress: Progress | None = None
    seconds: float | None = None
