import contextlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from stages.models import weights
from stages.models.base import ModelError
from stages.models.modular import ModularAdapter
from stages.models.precision import component_dtype, saved_dtype
from stages.protocol import ModelSource
from tests.models.kit import load, source

CPU = torch.device("cpu")


@pytest.fixture
def flux(tiny_model: Callable[[str], Path], tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(tiny_model("flux"), tmp_path / "flux"))


def test_local_folders(flux: Path, tmp_path: Path) -> None:
    assert weights.configs(source(flux)) == flux
    with pytest.raises(ModelError, match="does not exist"):
        weights.configs(ModelSource("m", str(tmp_path / "nothing")))
    with pytest.raises(ModelError, match=r"has no model_index\.json"):
        weights.configs(ModelSource("m", str(tmp_path)))


@pytest.mark.parametrize("name", ["synthetic", "../etc/passwd", "a/b/c", "-x/y", "~/models"])
def test_what_is_no_model(name: str) -> None:
    with pytest.raises(ModelError, match="neither an absolute folder nor a hub id"):
        weights.configs(ModelSource("m", name))


def test_pickled_weights_are_refused(flux: Path) -> None:
    vae = flux / "vae"
    (vae / "diffusion_pytorch_model.safetensors").rename(vae / "diffusion_pytorch_model.bin")
    with pytest.raises(ModelError, match=r"diffusion_pytorch_model\.bin.*safetensors only"):
        load(flux, "decode")
    load(flux, "encode")  # does not need it


def test_missing_weights_are_named(flux: Path) -> None:
    (flux / "text_encoder" / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="text_encoder has no"):
        load(flux, "encode")
    shutil.rmtree(flux / "text_encoder")
    with pytest.raises(ModelError, match="has no folder text_encoder"):
        load(flux, "encode")


def test_damaged_weights_are_a_model_error(flux: Path) -> None:
    (flux / "vae" / "diffusion_pytorch_model.safetensors").write_bytes(b"\xff" * 64)
    with pytest.raises(ModelError, match="not a safetensors file"):
        load(flux, "decode")


def test_a_component_that_diffusers_cannot_load_is_named(flux: Path) -> None:
    config = json.loads((flux / "vae" / "config.json").read_text())
    (flux / "vae" / "config.json").write_text(json.dumps(config | {"latent_channels": 8}))
    with pytest.raises(ModelError, match="vae"):
        load(flux, "decode")


def test_code_from_the_repository_is_never_run(flux: Path) -> None:
    index = json.loads((flux / "model_index.json").read_text())
    (flux / "model_index.json").write_text(json.dumps(index | {"vae": ["evil_module", "Vae"]}))
    (flux / "evil_module.py").write_text("raise SystemExit('ran')")
    with pytest.raises(ModelError, match="only diffusers and transformers"):
        load(flux, "decode")


def test_other_repositories_are_not_fetched(flux: Path) -> None:
    index = json.loads((flux / "model_index.json").read_text())
    spec = {"pretrained_model_name_or_path": "some/where", "subfolder": "vae", "type_hint": index["vae"]}
    modular = {"_class_name": "FluxModularPipeline", "_blocks_class_name": "FluxAutoBlocks"}
    (flux / "modular_model_index.json").write_text(json.dumps(modular | {"vae": [*index["vae"], spec]}))
    model: Any = None
    with contextlib.suppress(ModelError):  # diffusers 0.39 would fetch it; newer ones take what is in the folder
        model = ModularAdapter().load(source(flux), "decode", "cpu")
    assert model is None or Path(model.pipeline._component_specs["vae"].pretrained_model_name_or_path) == flux


def test_only_what_a_stage_needs_is_fetched(monkeypatch: pytest.MonkeyPatch, flux: Path) -> None:
    import huggingface_hub

    calls: list[dict[str, Any]] = []

    def snapshot_download(repo: str, **arguments: Any) -> str:
        calls.append({"repo": repo} | arguments)
        return str(flux)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    model = ModelSource("m", "org/flux", revision="abc")
    folder = weights.configs(model)
    weights.fetch(model, folder, ["vae"])
    assert [call["revision"] for call in calls] == ["abc", "flux"]  # the second time the folder's own commit
    first, second = (call["allow_patterns"] for call in calls)
    assert not [pattern for pattern in first if "safetensors" in pattern and not pattern.endswith(".json")]
    assert [pattern for pattern in second if pattern not in first] == ["vae/*.safetensors"]
    assert not [p for p in first + second if p.endswith((".bin", ".pt", ".ckpt", ".py"))]


def test_hub_errors_say_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    import httpx
    import huggingface_hub
    from huggingface_hub import errors

    response = httpx.Response(403, request=httpx.Request("GET", "https://hub"))
    for error, words in (
        (errors.GatedRepoError("x", response=response), "accept its licence"),
        (errors.RepositoryNotFoundError("x", response=response), "no model"),
        (errors.RevisionNotFoundError("x", response=response), "no revision"),
    ):

        def fail(*_: Any, error: Exception = error, **__: Any) -> str:
            raise error

        monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
        with pytest.raises(ModelError, match=words):
            weights.configs(ModelSource("m", "org/name", revision="r"))


def test_dtypes(flux: Path, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    vae = flux / "vae"
    assert saved_dtype(vae) == torch.float32
    assert saved_dtype(flux / "tokenizer") is None
    save_file({"a": torch.zeros(9, dtype=torch.bfloat16), "b": torch.zeros(1)}, tmp_path / "x.safetensors")
    assert saved_dtype(tmp_path) == torch.bfloat16
    assert component_dtype(tmp_path, "X", "auto", CPU) == torch.float32
    assert component_dtype(tmp_path, "X", "auto", torch.device("cuda")) == torch.bfloat16
    assert component_dtype(vae, "X", "bfloat16", CPU) == torch.bfloat16
    assert component_dtype(vae, "AutoencoderKLWan", "bfloat16", CPU) == torch.float32
    for wrong in ("int8", "half-ish", "nn"):
        with pytest.raises(ModelError, match="is not one of auto"):
            component_dtype(vae, "X", wrong, CPU)


@pytest.mark.parametrize("device", ["cuda:0", "gpu", "cuda:x"])
def test_devices_that_are_not_there(flux: Path, device: str) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises(ModelError, match="device"):
        ModularAdapter().load(source(flux), "decode", device)


def test_unknown_stage(flux: Path) -> None:
    with pytest.raises(ModelError, match="it has encode, denoise, decode"):
        load(flux, "paint")
