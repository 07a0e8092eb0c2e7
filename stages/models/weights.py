"""A model's source → a local folder that holds what one stage needs, as safetensors and nothing else. No torch.

Only configs, tokenizers and the ``*.safetensors`` of the components asked for are ever fetched. Pickled weights
(``*.bin``, ``*.pt``, ``*.ckpt``) are neither fetched nor read, and no code that comes with a model is run.
"""

import importlib.util
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any, Final

from stages.models.base import ModelError
from stages.models.cards import INDEX, read_config
from stages.protocol import ModelSource

_CONFIGS: Final = ("*.json", "*/*.json", "*/*.txt", "*/*.model", "*/*.jinja")
_VARIANTS: Final = ("*.fp16.*", "*.bf16.*", "*.fp32.*", "*non_ema*", "*.fp16-*", "*.bf16-*")
_PICKLED: Final = frozenset({".bin", ".pt", ".pth", ".ckpt", ".pkl"})
_HUB_ID: Final = re.compile(r"[A-Za-z0-9][\w.\-]*/[A-Za-z0-9][\w.\-]*", re.ASCII)
_LIBRARIES: Final = frozenset({"diffusers", "transformers"})


def is_model_id(source: ModelSource) -> bool:
    """Whether the id has the form of a hub id or an absolute path."""
    return Path(source.id).is_absolute() or _HUB_ID.fullmatch(source.id) is not None


def configs(source: ModelSource) -> Path:
    """The model's folder with its JSON files and tokenizers. Raises ModelError when there is no such model."""
    folder = Path(source.id)
    if folder.is_absolute():
        if not (folder / INDEX).is_file():
            what = "does not exist" if not folder.is_dir() else f"has no {INDEX}: it is not a diffusers repository"
            msg = f"{folder} {what}"
            raise ModelError(msg)
    elif _HUB_ID.fullmatch(source.id):
        folder = _snapshot(source.id, source.revision, _CONFIGS, ())
    else:
        msg = f"{source.id!r} is neither an absolute folder nor a hub id (organisation/name)"
        raise ModelError(msg)
    check_index(read_config(folder / INDEX), folder)
    return folder


def fetch(source: ModelSource, folder: Path, components: Collection[str]) -> None:
    """Make sure that ``folder``, which :func:`configs` gave, holds the weights of ``components``.

    Raises ModelError when a component is missing or has only pickled weights.
    """
    if not Path(source.id).is_absolute():
        wanted = tuple(f"{name}/*.safetensors" for name in sorted(components))
        # The folder is named after the commit: `main` may have moved since the configs were read.
        fetched = _snapshot(source.id, folder.name, (*_CONFIGS, *wanted), _VARIANTS)
        if fetched != folder:
            msg = f"{source.id} changed while it was being fetched: {folder.name} became {fetched.name}"
            raise ModelError(msg)
    for name in components:
        _check_component(folder / name, source)


def check_index(index: dict[str, Any], folder: Path) -> None:
    """Raise ModelError if the pipeline has components from anywhere but diffusers and transformers."""
    for name, value in index.items():
        if not isinstance(value, list) or len(value) != 2 or not isinstance(value[0], str):
            continue
        library = value[0]
        if library not in _LIBRARIES and not _is_pipeline_module(library):
            msg = f"{folder}: component {name} comes from {library!r}; only diffusers and transformers classes are run"
            raise ModelError(msg)


def _is_pipeline_module(name: str) -> bool:
    """Whether diffusers has a pipeline package of this name, found without importing it. Unknown where it is absent:
    there no model can be run either."""
    spec = importlib.util.find_spec("diffusers")
    if not name.isidentifier() or spec is None or not spec.submodule_search_locations:
        return name.isidentifier()
    return (Path(spec.submodule_search_locations[0]) / "pipelines" / name).is_dir()


def _check_component(folder: Path, source: ModelSource) -> None:
    if not folder.is_dir():
        msg = f"{source.id} has no folder {folder.name}, which this stage needs"
        raise ModelError(msg)
    files = [path for path in folder.iterdir() if path.is_file()]
    if any(path.suffix == ".safetensors" for path in files):
        return
    pickled = sorted(path.name for path in files if path.suffix in _PICKLED)
    # A component of which only configs were fetched: a tokenizer, a scheduler, or weights in another format.
    if pickled or _should_have_weights(folder):
        what = f"only {', '.join(pickled)}" if pickled else "no *.safetensors"
        msg = f"{source.id}/{folder.name} has {what}: weights are taken as safetensors only (convert the repository)"
        raise ModelError(msg)


def _should_have_weights(folder: Path) -> bool:
    """A model's config names its class or architecture; a tokenizer's or scheduler's file is called otherwise."""
    path = folder / "config.json"
    if not path.is_file():
        return False
    config = read_config(path)
    return "architectures" in config or "_class_name" in config


def _snapshot(repo: str, revision: str | None, allow: Collection[str], ignore: Collection[str]) -> Path:
    """Fetch the files of a hub repository, or find them in the cache. Network trouble is left to the caller to retry."""
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import (
            GatedRepoError,
            HFValidationError,
            RepositoryNotFoundError,
            RevisionNotFoundError,
        )
    except ImportError as err:
        msg = f"{repo} is a hub id, and huggingface_hub is not installed: pip install 'disagctl[worker]'"
        raise ModelError(msg) from err
    try:
        return Path(
            snapshot_download(repo, revision=revision, allow_patterns=list(allow), ignore_patterns=list(ignore))
        )
    except GatedRepoError as err:
        msg = f"{repo} is gated: accept its licence on the hub, and name HF_TOKEN under secrets"
        raise ModelError(msg) from err
    except RevisionNotFoundError as err:
        msg = f"{repo} has no revision {revision!r}"
        raise ModelError(msg) from err
    except (RepositoryNotFoundError, HFValidationError) as err:
        msg = f"there is no model {repo!r} on the hub (or it is private: name HF_TOKEN under secrets)"
        raise ModelError(msg) from err
