"""A denoise stage on several processes: the same numbers as on one, whatever the degree, and nothing survives a lost rank."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from stages.models import registry
from stages.models.cards import read_card
from stages.models.spread import SpreadStage
from stages.models.tensors import unpack_values
from tests.models.kit import crossed, finish, run_until, source

Tiny = Callable[[str], Path]
TOLERANCE = 1e-5


def request_for(folder: Path) -> dict[str, Any]:
    return read_card(folder).defaults | {"prompt": "a red bird", "negative_prompt": "blurry", "seed": 7}


def load(folder: Path, ranks: int) -> Any:
    model = source(folder, ranks=ranks)
    return registry.choose(model).load(model, "denoise", "cpu")


def latents(result: Any) -> np.ndarray:
    return unpack_values(result)["values"]["latents"].numpy()


@pytest.mark.timeout(600)
@pytest.mark.parametrize("family", ["wan", pytest.param("flux", marks=pytest.mark.families)])
def test_two_ranks_equal_one_and_the_degree_changes_between_steps(family: str, tiny_model: Tiny) -> None:
    folder = tiny_model(family)
    params = request_for(folder)
    arrived = run_until(folder, "denoise", params)
    expected = latents(finish(load(folder, 1).start(params, arrived)))
    model = load(folder, 2)
    try:
        assert np.abs(latents(finish(model.start(params, arrived))) - expected).max() <= TOLERANCE
        job = model.start(params, arrived)
        for degree in (1, 2, 2, 1):
            job.spread(degree)
            job.step()
        assert np.abs(latents(job.finish()) - expected).max() <= TOLERANCE
        paused = model.start(params, arrived)
        paused.step()
        snapshot = crossed(paused.snapshot())
        other = finish(model.start(params | {"seed": 8}, arrived))
        assert np.abs(latents(other) - expected).max() > TOLERANCE
        assert np.abs(latents(finish(model.resume(params, snapshot))) - expected).max() <= TOLERANCE
    finally:
        model.unload()


@pytest.mark.timeout(600)
def test_a_rank_that_dies_is_noticed(tiny_model: Tiny) -> None:
    folder = tiny_model("wan")
    lost: list[str] = []
    params = request_for(folder)
    arrived = run_until(folder, "denoise", params)
    alone = load(folder, 1)
    model = SpreadStage(alone, source(folder, ranks=2), "denoise", torch.device("cpu"), lost.append, timeout_s=20.0)
    try:
        job = model.start(params, arrived)
        job.step()
        os.kill(model.ranks.processes[0].pid, signal.SIGKILL)
        model.ranks.processes[0].wait()
        with pytest.raises(RuntimeError):
            job.step()
        assert lost
    finally:
        model.ranks.close()
