"""Requests computed together: what each would have been alone, to 1e-5; left, paused and gone on with alone."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stages.models import batch, modular, state
from stages.models.base import Batching, File
from stages.models.cards import STAGES, read_card
from tests.models.kit import crossed, finish, load
from tests.tiny import FAMILIES

Tiny = Callable[[str], Path]
TOLERANCE = 1e-5
ALONE = {"wan_i2v", "hunyuan", "wan22_ti2v"}  # a picture to begin with; not served by modular blocks
EVERY = [pytest.param(f, id=f, marks=[] if f == "flux" else [pytest.mark.families]) for f in FAMILIES if f not in ALONE]


def requests_for(folder: Path) -> list[dict[str, Any]]:
    common = read_card(folder).defaults | {"negative_prompt": "blurry"}
    return [
        common | {"prompt": text, "seed": 7 + i} for i, text in enumerate(("a red bird", "a big fish", "a new cart"))
    ]


def raw(result: Any, *_: Any) -> File:
    """Instead of an encoded file: the pixels as the decoder leaves them, in [0, 1]."""
    return File("raw", np.ascontiguousarray(result[0], dtype=np.float32).tobytes())


@pytest.fixture(autouse=True)
def pixels_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(modular, "encode_result", raw)
    monkeypatch.setattr(batch, "encode_result", raw)
    begin = state.initial_values
    monkeypatch.setattr(modular, "initial_values", lambda *args: begin(*args) | {"output_type": "np"})


def pixels(folder: Path, stage: str, requests: list[dict[str, Any]], results: list[Any]) -> np.ndarray:
    """What becomes of the results of ``stage`` when the rest is computed one by one."""
    for name in STAGES[STAGES.index(stage) + 1 :]:
        model = load(folder, name)
        results = [finish(model.start(p, crossed(parcel))) for p, parcel in zip(requests, results, strict=True)]
    return np.stack([np.frombuffer(file.data, dtype=np.float32) for file in results])


def assert_close(folder: Path, stage: str, requests: list[dict[str, Any]], one: list[Any], other: list[Any]) -> None:
    apart = np.abs(pixels(folder, stage, requests, one) - pixels(folder, stage, requests, other)).max()
    assert apart <= TOLERANCE


def alone_and_together(folder: Path, stage: str) -> tuple[Any, list[dict[str, Any]], list[Any]]:
    """The stage, the requests, and what arrives there of each, computed alone."""
    requests = requests_for(folder)
    arrived: list[Any] = [None for _ in requests]
    for name in STAGES[: STAGES.index(stage)]:
        model = load(folder, name)
        arrived = [crossed(finish(model.start(p, parcel))) for p, parcel in zip(requests, arrived, strict=True)]
    return load(folder, stage), requests, arrived


@pytest.mark.parametrize("family", EVERY)
@pytest.mark.parametrize("stage", STAGES)
def test_a_batch_gives_what_each_alone_gives(family: str, stage: str, tiny_model: Tiny) -> None:
    model, requests, arrived = alone_and_together(tiny_model(family), stage)
    assert isinstance(model, Batching)
    pairs = list(zip(requests, arrived, strict=True))
    assert len({model.batch_key(*pair) for pair in pairs}) == 1
    expected = [finish(model.start(*pair)) for pair in pairs]
    job = model.start_batch(pairs)
    while job.step():
        pass
    assert_close(tiny_model(family), stage, requests, job.finish(), expected)


@pytest.mark.parametrize("family", EVERY)
def test_a_member_leaves_with_a_snapshot_of_its_own(family: str, tiny_model: Tiny) -> None:
    model, requests, arrived = alone_and_together(tiny_model(family), "denoise")
    pairs = list(zip(requests, arrived, strict=True))
    expected = [finish(model.start(*pair)) for pair in pairs]
    job = model.start_batch(pairs)
    job.step()
    job.step()
    snapshot = crossed(job.snapshot(1))
    job.leave(1)
    while job.step():
        pass
    first, third = job.finish()
    second = finish(model.resume(requests[1], snapshot))
    assert_close(tiny_model(family), "denoise", requests, [first, second, third], expected)


def test_as_many_members_as_steps(tiny_model: Tiny) -> None:
    """The timesteps are then as long as the batch is wide, and are no member's all the same."""
    model, requests, arrived = alone_and_together(tiny_model("flux"), "denoise")
    requests = [params | {"num_inference_steps": 3} for params in requests]
    pairs = list(zip(requests, arrived, strict=True))
    job = model.start_batch(pairs)
    job.step()
    snapshot = crossed(job.snapshot(2))
    job.leave(2)
    job.leave(0)
    while job.step():
        pass
    results = [*job.finish(), finish(model.resume(requests[2], snapshot))]
    expected = [finish(model.start(*pair)) for pair in pairs[1:]]
    assert_close(tiny_model("flux"), "denoise", requests[1:], results, expected)


def test_what_differs_in_more_than_text_and_seed_stays_apart(tiny_model: Tiny) -> None:
    model, requests, arrived = alone_and_together(tiny_model("flux"), "denoise")
    first, other = requests[0], requests[1] | {"num_inference_steps": 2}
    assert model.batch_key(first, arrived[0]) != model.batch_key(other, arrived[1])
