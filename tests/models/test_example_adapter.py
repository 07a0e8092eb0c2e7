"""examples/adapter follows the protocol: found by its entry point, as stages, paused and resumed, refusing what it can't."""

import sys
import tomllib
from importlib.metadata import EntryPoint
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from stages.models import registry
from stages.models.base import Adapter, File, ModelError, RequestError
from stages.models.cards import read_card
from stages.parcel import Parcel, ParcelError
from stages.protocol import ModelSource
from tests.models.kit import crossed, finish

FOLDER = Path(__file__).parents[2] / "examples" / "adapter"
BOARD = ModelSource("board", str(FOLDER / "board"), options=b'{"squares": 4}')


@pytest.fixture
def adapter(monkeypatch: pytest.MonkeyPatch) -> Any:
    """As the registry finds it, without installing: by the entry point that its pyproject.toml declares."""
    groups = tomllib.loads((FOLDER / "pyproject.toml").read_text())["project"]["entry-points"]
    points = [EntryPoint(name, value, registry.GROUP) for name, value in groups[registry.GROUP].items()]
    monkeypatch.setattr(registry, "entry_points", lambda **_: points)
    monkeypatch.syspath_prepend(str(FOLDER))
    yield registry.choose(BOARD)
    sys.modules.pop("disagctl_example_adapter", None)


def request_for(**fields: Any) -> dict[str, Any]:
    return read_card(Path(BOARD.id)).defaults | {"prompt": "warm colours", "seed": 7, "output_format": "png"} | fields


def arrived(adapter: Any, stage: str, params: dict[str, Any]) -> Parcel | None:
    parcel = None
    for name in adapter.card(BOARD, None).stages:
        if name == stage:
            return parcel
        parcel = crossed(finish(adapter.load(BOARD, name, "cpu").start(params, parcel)))
    raise AssertionError(stage)


def made(adapter: Any, params: dict[str, Any]) -> bytes:
    file = finish(adapter.load(BOARD, "decode", "cpu").start(params, arrived(adapter, "decode", params)))
    assert isinstance(file, File)
    assert file.mime == "image/png"
    return file.data


def test_it_is_found_and_keeps_to_its_own_models(adapter: Any) -> None:
    assert isinstance(adapter, Adapter)
    assert type(adapter).__name__ == "CheckerboardAdapter"
    assert not adapter.supports(ModelSource("m", "somebody/else"))
    assert not adapter.supports(ModelSource("s", "synthetic"))
    assert type(registry.choose(ModelSource("s", "synthetic"))).__name__ == "SyntheticAdapter"


def test_its_card_is_what_the_head_reads_from_the_folder(adapter: Any) -> None:
    assert adapter.card(BOARD, None) == read_card(Path(BOARD.id))


def test_stages_make_a_picture_of_the_size_asked_for(adapter: Any) -> None:
    picture = Image.open(BytesIO(made(adapter, request_for(width=96, height=64))))
    assert picture.size == (96, 64)
    colours = picture.getcolors()
    assert colours is not None
    assert len(colours) == 2  # all noise is gone


def test_it_depends_on_prompt_and_nothing_that_it_should_not(adapter: Any) -> None:
    assert made(adapter, request_for()) == made(adapter, request_for())
    assert made(adapter, request_for()) != made(adapter, request_for(prompt="cold colours"))


@pytest.mark.parametrize("steps", [0, 3, 8])
def test_a_snapshot_goes_on_elsewhere_bit_for_bit(adapter: Any, steps: int) -> None:
    params = request_for()
    job = adapter.load(BOARD, "denoise", "cpu").start(params, arrived(adapter, "denoise", params))
    for _ in range(steps):
        job.step()
    snapshot = crossed(job.snapshot())
    while job.steps_done < job.total_steps:
        job.step()
    other = adapter.load(BOARD, "denoise", "cpu").resume(params, snapshot)
    assert (other.total_steps, other.steps_done) == (8, steps)
    while other.steps_done < other.total_steps:
        other.step()
    assert other.finish().tree == job.finish().tree
    assert other.finish().tensors == job.finish().tensors


def test_what_it_refuses(adapter: Any) -> None:
    with pytest.raises(RequestError) as refused:
        adapter.load(BOARD, "encode", "cpu").start(request_for(output_format="webp"), None)
    assert refused.value.param == "output_format"
    with pytest.raises(ModelError, match="no stage 'paint'; it has encode"):
        adapter.load(BOARD, "paint", "cpu")
    with pytest.raises(ModelError, match="squares is 0"):
        adapter.load(ModelSource("b", BOARD.id, options=b'{"squares": 0}'), "encode", "cpu")
    with pytest.raises(ParcelError):
        adapter.load(BOARD, "decode", "cpu").start(request_for(), None)
    with pytest.raises(ParcelError):
        adapter.load(BOARD, "encode", "cpu").start(request_for(), None).snapshot()
