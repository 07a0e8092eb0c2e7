"""A repository whose weights are made up: the configs of a real one, and safetensors files that are one big hole.

Time and memory do not depend on what the weights say, so a model can be profiled before (or without) fetching them. The
files take no room on disk; once a stage is loaded, :func:`randomise` fills its parameters with noise, because a
processor that multiplies zeros runs cooler, and faster, than one that works.
"""

import json
import shutil
from pathlib import Path
from typing import Any, Final

import diffusers
import torch
import transformers
from accelerate import init_empty_weights

from stages.memory import tensors_of
from stages.models.base import ModelError
from stages.models.cards import INDEX, read_config

_TEXTS: Final = frozenset({".json", ".txt", ".model", ".jinja"})
_NAMES: Final = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64"}
_KEPT_FLOAT32: Final = frozenset({"AutoencoderKLWan"})  # as published
_SPREAD: Final = 0.02
_WHOLE: Final = (torch.int8, torch.uint8)


def write_blank(folder: Path, target: Path, dtype: str) -> None:
    """Write the repository in ``folder`` to ``target``, with blank weights. Raises ModelError for classes not known."""
    index = read_config(folder / INDEX)
    for path in folder.rglob("*"):
        if path.is_file() and path.suffix in _TEXTS and not path.name.endswith(".index.json"):
            copy = target / path.relative_to(folder)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
    for name, value in index.items():
        if isinstance(value, list) and len(value) == 2 and value[0] and (folder / name / "config.json").is_file():
            model = _empty(folder / name, str(value[0]), str(value[1]))
            if isinstance(model, torch.nn.Module):
                file = "diffusion_pytorch_model" if value[0] == "diffusers" else "model"
                wanted = "float32" if value[1] in _KEPT_FLOAT32 else "bfloat16" if dtype == "auto" else dtype
                _write_hole(target / name / f"{file}.safetensors", model, getattr(torch, wanted))


def randomise(parameters: list[Any]) -> None:
    """Fill them with noise, in place."""
    with torch.no_grad():
        for tensor in (part for parameter in parameters for part in tensors_of(parameter)):
            if tensor.dtype in _WHOLE:
                tensor.random_()  # over all of the format
            elif tensor.dtype.itemsize == 1:  # float8 has no generator of its own
                tensor.copy_(torch.randn(tensor.shape))
            elif tensor.is_floating_point():
                tensor.normal_(0.0, _SPREAD)


def _empty(folder: Path, library: str, name: str) -> Any:
    """The component on the meta device, without memory; None for what is no model."""
    made: Any = getattr(diffusers if library == "diffusers" else transformers, name, None)
    if not _is_module(made):
        return None
    try:
        with init_empty_weights():
            if library == "diffusers":
                return made.from_config(read_config(folder / "config.json"))
            return made(made.config_class.from_pretrained(folder, local_files_only=True))
    except (OSError, TypeError, ValueError) as err:
        msg = f"{folder}: a {name} cannot be made from its config: {err}"
        raise ModelError(msg) from err


def _is_module(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, torch.nn.Module)


def _write_hole(path: Path, model: Any, dtype: torch.dtype) -> None:
    """A safetensors file with all of the model's tensors; nothing but its header is written."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, tensor in model.state_dict().items():
        kind = dtype if tensor.is_floating_point() else torch.int64
        begin, end = end, end + tensor.numel() * kind.itemsize
        header[name] = {"dtype": _NAMES[kind], "shape": list(tensor.shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)
