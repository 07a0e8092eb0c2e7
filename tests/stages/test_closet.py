"""Weights that wait in the host's memory."""

import pytest

from stages.closet import MOST, Closet
from stages.protocol import ModelSource
from tests.stages.fake_models import Fake, Plain

GIB = 1 << 30
SOURCE = ModelSource("m", "x")


def key(stage: str) -> tuple[ModelSource, str]:
    return SOURCE, stage


def closet(*, available: int = 60, on_device: bool = True, size: int = 10) -> Closet:
    return Closet(on_device=on_device, host=lambda: (100 * GIB, available * GIB), size=lambda: size * GIB)


def test_what_is_kept_comes_back_and_only_as_what_it_was() -> None:
    kept, model = closet(), Fake()
    kept.put(key("denoise"), model)
    assert model.calls == ["park"]
    assert kept.take(key("decode")) is None
    assert kept.take((ModelSource("m", "x", revision="newer"), "denoise")) is None
    assert kept.take(key("denoise")) is model
    assert model.calls == ["park", "unpark"]
    assert kept.take(key("denoise")) is None


def test_a_model_that_cannot_wait_is_unloaded() -> None:
    kept, model = closet(), Plain()
    kept.put(key("denoise"), model)
    assert model.calls == ["unload"]
    assert len(kept) == 0


@pytest.mark.parametrize(("on_device", "available", "parked"), [(True, 34, False), (True, 36, True), (False, 26, True)])
def test_a_part_of_the_memory_stays_free(on_device: bool, available: int, parked: bool) -> None:
    kept, model = closet(available=available, on_device=on_device), Fake()
    kept.put(key("denoise"), model)
    assert model.calls == (["park"] if parked else ["unload"])


def test_the_oldest_give_way() -> None:
    kept = closet()
    models = [Fake() for _ in range(MOST + 2)]
    for number, model in enumerate(models):
        kept.put(key(f"s{number}"), model)
    assert [model.calls[-1] for model in models] == ["unload", "unload", "park", "park"]
    kept.clear()
    assert {model.calls[-1] for model in models} == {"unload"}


def test_one_that_fails_on_its_way_is_unloaded_and_loaded_anew() -> None:
    kept = closet()
    for fails in ("park", "unpark"):
        model = Fake(fails)
        kept.put(key("denoise"), model)
        assert kept.take(key("denoise")) is None
        assert model.calls[-1] == "unload"
