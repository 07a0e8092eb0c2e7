"""Running a model's stages as separate workers would, without the workers."""

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from stages.models import registry
from stages.models.base import File, Job, StageModel
from stages.models.cards import STAGES
from stages.parcel import Leaf, Parcel, pack, seal, verify
from stages.protocol import ModelSource


def source(folder: Path, **fields: Any) -> ModelSource:
    return ModelSource(folder.name, str(folder), **fields)


def picture(width: int, height: int, kind: str = "PNG") -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, kind)
    return out.getvalue()


def upload(image: bytes | None) -> Parcel | None:
    if image is None:
        return None
    return pack({"input_reference": Leaf((len(image),), "uint8", memoryview(image))})


def crossed(parcel: Parcel | File) -> Parcel:
    """The parcel as another process would see it: other memory, read-only, one tensor after another, unaligned."""
    assert isinstance(parcel, Parcel)
    parcel = seal(parcel)
    blob = b"\0" + b"".join(bytes(buffer) for buffer in parcel.buffers)
    buffers, at = [], 1
    for desc in parcel.tensors:
        buffers.append(memoryview(blob)[at : at + desc.nbytes])
        at += desc.nbytes
    verify(parcel.tensors, buffers)
    return Parcel(bytes(parcel.tree), parcel.tensors, tuple(buffers))


def finish(job: Job) -> Parcel | File:
    while job.step():
        pass
    assert job.steps_done == job.total_steps
    return job.finish()


def load(folder: Path, stage: str) -> StageModel:
    model = source(folder)
    return registry.choose(model).load(model, stage, "cpu")


def run_until(folder: Path, stage: str, params: dict[str, Any], image: bytes | None = None) -> Parcel | None:
    """What arrives at ``stage``: each stage before it is loaded afresh."""
    parcel = upload(image)
    for name in STAGES[: STAGES.index(stage)]:
        model = load(folder, name)
        parcel = crossed(finish(model.start(params, parcel)))
        model.unload()
    return parcel


def run_stages(folder: Path, params: dict[str, Any], image: bytes | None = None) -> File:
    """The whole request, each stage in a model of its own."""
    arrived = run_until(folder, "decode", params, image)
    result = finish(load(folder, "decode").start(params, arrived))
    assert isinstance(result, File)
    return result
