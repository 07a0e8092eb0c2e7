"""A very small inference engine behind disagctl's adapter protocol: a checkerboard emerges from noise.

Everything it needs of disagctl is in ``stages.models.base`` (the protocol), ``stages.parcel`` (what crosses between
stages) and ``stages.protocol.ModelSource``. No torch: a real engine imports its own inside ``load``.
"""

import hashlib
import json
import random
import struct
import zlib
from pathlib import Path
from typing import Any, Final

from stages.models.base import File, Job, ModelCard, ModelError, RequestError, StageModel
from stages.parcel import Leaf, Parcel, ParcelError, pack, unpack
from stages.protocol import ModelSource

STAGES: Final = ("encode", "denoise", "decode")
CELL: Final = 8  # pixels along the edge of a cell of the latent grid


class CheckerboardAdapter:
    """Entry point ``checkerboard``. Made without arguments, holds no state."""

    def supports(self, source: ModelSource) -> bool:
        """Judge by the files alone, quickly: every adapter is asked about every model."""
        try:
            index = json.loads((Path(source.id) / "model_index.json").read_text())
        except (OSError, ValueError):
            return False
        return isinstance(index, dict) and index.get("_class_name") == "CheckerboardPipeline"

    def card(self, source: ModelSource, folder: Path | None) -> ModelCard:
        """What a gateway has to know to check a request and to fill in what it leaves out."""
        defaults = json.loads(((folder or Path(source.id)) / "disagctl.json").read_text())["defaults"]
        return ModelCard(STAGES, "image", "text2image", size_multiple=CELL, defaults=defaults)

    def load(self, source: ModelSource, stage: str, device: str) -> StageModel:
        """Load what this stage needs and nothing else. ModelError: a retry would not help, and here is what would."""
        squares = json.loads(source.options).get("squares", 8)
        if stage not in STAGES:
            msg = f"a checkerboard has no stage {stage!r}; it has {', '.join(STAGES)}"
            raise ModelError(msg)
        if not isinstance(squares, int) or squares < 1:
            msg = f"model.options.squares is {squares!r}: set it to a whole number from 1 on"
            raise ModelError(msg)
        return CheckerboardStage(stage, squares)


class CheckerboardStage:
    """One loaded stage. ``start`` and ``resume`` give jobs; one job at a time, always from the same thread."""

    def __init__(self, stage: str, squares: int) -> None:
        self.stage = stage
        self.squares = squares
        self.peak_bytes = 0  # optional: most device memory used so far, for the records

    def start(self, params: dict[str, Any], inputs: Parcel | None) -> Job:
        """``inputs``: what the stage before gave; for the first stage an uploaded picture, or None."""
        if params.get("output_format", "png") != "png":
            msg = "only png is made here"
            raise RequestError(msg, param="output_format")
        if self.stage == "encode":
            return EncodeJob(params["prompt"])
        if inputs is None:
            msg = f"{self.stage} needs what the stage before it made"
            raise ParcelError(msg)
        values = unpack(inputs)
        if self.stage == "decode":
            return DecodeJob(values)
        columns, rows = params["width"] // CELL, params["height"] // CELL
        noise = random.Random(params["seed"]).randbytes(columns * rows)  # the seed alone decides, on any worker
        grid = {"columns": columns, "rows": rows, "colours": values["colours"], "cells": noise}
        return DenoiseJob(grid, self.squares, params["num_inference_steps"], 0)

    def resume(self, params: dict[str, Any], snapshot: Parcel) -> Job:
        """Nothing but the request and the snapshot: there are no inputs here, so the snapshot holds what they gave."""
        values = unpack(snapshot)
        if self.stage != "denoise" or "steps_done" not in values:
            msg = "the parcel is not a snapshot of this stage"
            raise ParcelError(msg)
        done = values.pop("steps_done")
        return DenoiseJob(_plain(values), self.squares, params["num_inference_steps"], done)

    def unload(self) -> None:
        """A real engine frees its weights here, also on the device."""


class OneStep:
    """What jobs without a loop have in common."""

    total_steps = 1

    def __init__(self) -> None:
        self.steps_done = 0

    def step(self) -> bool:
        """All the work, in one step."""
        self.steps_done = 1
        return False

    def snapshot(self) -> Parcel:
        """There is no boundary inside to stop at."""
        msg = "this stage runs in one piece: it cannot be paused"
        raise ParcelError(msg)


class EncodeJob(OneStep):
    """Prompt → two colours."""

    def __init__(self, prompt: str) -> None:
        super().__init__()
        self._digest = hashlib.blake2b(prompt.encode(), digest_size=6).digest()

    def finish(self) -> Parcel:
        """Plain values need no tensor."""
        return pack({"colours": [list(self._digest[:3]), list(self._digest[3:])]})


class DenoiseJob:
    """Noise → squares, a little nearer with every step. Whole numbers only, so it is exact wherever it runs."""

    def __init__(self, grid: dict[str, Any], squares: int, steps: int, steps_done: int) -> None:
        self._grid = grid
        self._squares = squares
        self.total_steps = steps
        self.steps_done = steps_done

    def step(self) -> bool:
        """One step. True while more remain; between two calls the worker looks whether the request was cancelled."""
        left, columns = self.total_steps - self.steps_done, self._grid["columns"]
        side = max(1, columns // self._squares)
        board = (255 * ((i % columns // side + i // columns // side) % 2) for i in range(len(self._grid["cells"])))
        cells = zip(self._grid["cells"], board, strict=True)
        self._grid["cells"] = bytes(have + int((want - have) / left) for have, want in cells)
        self.steps_done += 1
        return left > 1

    def snapshot(self) -> Parcel:
        """All that ``step`` and ``finish`` use and the request does not say."""
        return pack({**self._wire(), "steps_done": self.steps_done})

    def finish(self) -> Parcel:
        """For the decode stage."""
        return pack(self._wire())

    def _wire(self) -> dict[str, Any]:
        """Bulk goes as a Leaf: shape, dtype (torch's name for it) and the bytes."""
        shape = (self._grid["rows"], self._grid["columns"])
        return {**self._grid, "cells": Leaf(shape, "uint8", memoryview(self._grid["cells"]))}


class DecodeJob(OneStep):
    """Grid → PNG."""

    def __init__(self, wire: dict[str, Any]) -> None:
        super().__init__()
        self._grid = _plain(wire)

    def finish(self) -> File:
        """The last stage gives a File."""
        grid, (dark, light) = self._grid, self._grid["colours"]
        shades = [bytes(a + (b - a) * v // 255 for a, b in zip(dark, light, strict=True)) * CELL for v in range(256)]
        lines = []
        for row in range(grid["rows"]):
            cells = grid["cells"][row * grid["columns"] : (row + 1) * grid["columns"]]
            lines.append((b"\0" + b"".join(shades[cell] for cell in cells)) * CELL)
        return File("image/png", _png(grid["columns"] * CELL, grid["rows"] * CELL, b"".join(lines)))


def _plain(wire: dict[str, Any]) -> dict[str, Any]:
    """With the cells as bytes of our own: a Leaf's are read-only memory that goes away after the job."""
    return {**wire, "cells": bytes(wire["cells"].data)}


def _png(width: int, height: int, lines: bytes) -> bytes:
    """RGB lines, each behind a zero byte, as a PNG."""
    chunks = {
        b"IHDR": struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0),
        b"IDAT": zlib.compress(lines),
        b"IEND": b"",
    }
    parts = [struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks.items()]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)
