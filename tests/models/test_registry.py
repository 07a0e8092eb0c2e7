from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from stages.models import registry
from stages.models.base import ModelError
from stages.models.synthetic import SyntheticAdapter
from stages.protocol import ModelSource


class Eager(SyntheticAdapter):
    """Another package's adapter, which serves everything."""

    def supports(self, source: ModelSource) -> bool:
        return True


class NotAnAdapter:
    pass


def install(monkeypatch: pytest.MonkeyPatch, **values: str) -> None:
    points = [EntryPoint(name, value, registry.GROUP) for name, value in values.items()]
    monkeypatch.setattr(registry, "entry_points", lambda **_: points)


def test_built_in_ones_are_found_without_metadata(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch)
    assert list(registry.available()) == ["synthetic", "modular", "classic"]
    assert isinstance(registry.choose(ModelSource("s", "synthetic")), SyntheticAdapter)


def test_others_are_asked_before_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, zeta=f"{__name__}:Eager", modular="stages.models.modular:ModularAdapter")
    assert list(registry.available()) == ["synthetic", "zeta", "modular", "classic"]
    assert type(registry.choose(ModelSource("m", "/nowhere"))).__name__ == "Eager"
    assert type(registry.choose(ModelSource("s", "synthetic"))) is SyntheticAdapter


def test_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    assert type(registry.choose(ModelSource("m", "any/thing", adapter="synthetic"))) is SyntheticAdapter
    with pytest.raises(ModelError, match=r"no adapter is called 'sintetic'; there are synthetic, .*modular, classic"):
        registry.choose(ModelSource("m", "any/thing", adapter="sintetic"))
    install(monkeypatch, broken="no_such_module:Adapter", wrong=f"{__name__}:NotAnAdapter")
    with pytest.raises(ModelError, match="cannot be imported"):
        registry.choose(ModelSource("m", "x", adapter="broken"))
    with pytest.raises(ModelError, match="lacks a method"):
        registry.choose(ModelSource("m", "x", adapter="wrong"))


def test_nobody_serves_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, broken="no_such_module:Adapter")
    folder: Any = tmp_path / "model"
    folder.mkdir()
    (folder / "model_index.json").write_text('{"_class_name": "NeverHeardOfPipeline"}')
    with pytest.raises(
        ModelError, match=r"no adapter serves .*asked synthetic, broken, modular, classic.*broken cannot"
    ):
        registry.choose(ModelSource("m", str(folder)))


def test_families_go_to_their_adapters(tiny_model: Any) -> None:
    names = {f: type(registry.choose(ModelSource(f, str(tiny_model(f))))).__name__ for f in ("flux", "hunyuan", "wan")}
    assert names == {"flux": "ModularAdapter", "hunyuan": "ClassicAdapter", "wan": "ModularAdapter"}
    assert type(registry.choose(ModelSource("5b", str(tiny_model("wan22_ti2v"))))).__name__ == "ClassicAdapter"
