"""What a profiling process is told and what it answers: one JSON object a line, on its stdin and stdout."""

import msgspec

from stages.protocol import ModelSource


class LoadStage(msgspec.Struct, frozen=True, tag="load"):
    """Load one stage. First words; ``randomise``: the weights on disk are blank, fill them with noise once loaded."""

    source: ModelSource
    stage: str
    device: str
    randomise: bool = False


class Measure(msgspec.Struct, frozen=True, tag="measure"):
    """Warm up, then compute one request up to ``repeats`` times, until ``patience_s`` is spent.

    ``input`` and ``output``: files that hold the parcel of the stage before, and take the one for the stage after.
    """

    params: bytes  # JSON object: the request's fields
    input: str | None
    output: str
    repeats: int
    patience_s: float


class BlankModel(msgspec.Struct, frozen=True, tag="blank"):
    """Write a repository with the model's configs and blank weights to ``target``."""

    source: ModelSource
    target: str


class Loaded(msgspec.Struct, frozen=True, tag="loaded"):
    """``precision``: what most weights are held in, empty where that cannot be seen."""

    load_s: float
    weights_bytes: int
    precision: str = ""


class Progress(msgspec.Struct, frozen=True, tag="progress"):
    """Steps done of the ``run``-th computation (0: the warm-up)."""

    run: int
    done: int
    total: int


class Measured(msgspec.Struct, frozen=True, tag="measured"):
    """Seconds of each repeat; the most memory held meanwhile, weights included; size of what was handed on."""

    seconds: tuple[float, ...]
    peak_bytes: int
    output_bytes: int


class Blank(msgspec.Struct, frozen=True, tag="done"):
    """The blank model is written."""


class Trouble(msgspec.Struct, frozen=True, tag="trouble"):
    """It did not work. kind: request (these fields will not do) | model | memory | error."""

    kind: str
    message: str


Order = LoadStage | Measure | BlankModel
Answer = Loaded | Progress | Measured | Blank | Trouble
