"""Loading one stage's components, and standing in for those of the others."""

import logging
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from accelerate import init_empty_weights
from diffusers import ModelMixin

from stages.models.base import ModelError
from stages.models.blocks import StagePlan
from stages.models.cards import read_config
from stages.models.precision import component_dtype
from stages.models.quantise import base_dtype, place, quantisers
from stages.protocol import ModelSource

_log = logging.getLogger(__name__)


def prepare_process(device: torch.device) -> None:
    """Quiet the libraries; on the CPU one thread a worker (two on a busy machine were ten times slower than one)."""
    diffusers.utils.logging.set_verbosity_error()
    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    if device.type == "cpu":
        torch.set_num_threads(1)
    else:
        torch.cuda.set_device(device)
        torch.cuda.reset_peak_memory_stats(device)


def parse_device(name: str) -> torch.device:
    """``cpu``, ``cuda:0`` …. Raises ModelError when there is no such device here."""
    try:
        device = torch.device(name)
    except RuntimeError as err:
        msg = f"{name!r} is not a device: {err}"
        raise ModelError(msg) from err
    if device.type == "cuda" and not torch.cuda.is_available():
        msg = f"device {name!r} was asked for, and torch {torch.__version__} sees no CUDA here"
        raise ModelError(msg)
    return torch.device("cuda", 0) if device == torch.device("cuda") else device


def peak_bytes(device: torch.device) -> int:
    """Most device memory used so far by this process; 0 on the CPU."""
    return int(torch.cuda.max_memory_allocated(device)) if device.type == "cuda" else 0


def free(device: torch.device) -> None:
    """Give freed memory back to the device."""
    if device.type == "cuda":
        torch.cuda.empty_cache()


def needed_components(full: Any, plan: StagePlan) -> list[str]:
    """Names of the components of the repository that the stage's blocks expect."""
    specs = full._component_specs
    wanted = dict.fromkeys(component.name for _, block in plan.leaves for component in block.expected_components)
    others = plan.foreign
    return [name for name in wanted if name not in others and specs[name].default_creation_method == "from_pretrained"]


def load_stage(full: Any, plan: StagePlan, folder: Path, source: ModelSource, device: torch.device) -> Any:
    """A pipeline of the stage's blocks with its components on ``device``. Raises ModelError when one does not load."""
    pipeline = type(full)(blocks=plan.blocks(), pretrained_model_name_or_path=str(folder))
    names = needed_components(full, plan)
    models = [name for name in names if _is_module(full, name)]
    wanted = base_dtype(source.dtype, source.precision)
    dtypes = {name: _dtype(full, name, folder, wanted, device) for name in models}
    libraries = {name: full._component_specs[name].type_hint.__module__.partition(".")[0] for name in models}
    _load(pipeline, names, dtypes, quantisers(models, libraries, source.precision, dtypes))
    place(pipeline, device, source.precision)
    _stand_in(full, pipeline, folder)
    return pipeline


def _load(pipeline: Any, names: list[str], dtypes: dict[str, torch.dtype], quantised: dict[str, Any]) -> None:
    """Fill in the components.

    The keyword for the dtype changed between diffusers 0.39 (``torch_dtype``) and 0.42 (``dtype``), and with the wrong
    one a component silently stays None: try both, then insist.
    """
    more = {"use_safetensors": dict.fromkeys(dtypes, True), "quantization_config": quantised}
    for keyword in _dtype_keywords():
        missing = [name for name in names if getattr(pipeline, name, None) is None]
        pipeline.load_components(names=missing, **more, **{keyword: dtypes})
    missing = [name for name in names if getattr(pipeline, name, None) is None]
    if missing:
        msg = (
            f"{type(pipeline).__name__}: {', '.join(missing)} could not be loaded by diffusers {diffusers.__version__}"
        )
        raise ModelError(msg)
    for name in dtypes:
        getattr(pipeline, name).eval().requires_grad_(False)


def _dtype_keywords() -> tuple[str, str]:
    """The keyword of the diffusers that is installed, then the other one."""
    new = tuple(map(int, diffusers.__version__.split(".")[:2])) >= (0, 41)
    return ("dtype", "torch_dtype") if new else ("torch_dtype", "dtype")


def with_dtype(dtypes: dict[str, torch.dtype]) -> dict[str, Any]:
    """The keyword argument that tells a classic pipeline's ``from_pretrained`` each component's dtype."""
    return {_dtype_keywords()[0]: dtypes}


def _dtype(full: Any, name: str, folder: Path, wanted: str, device: torch.device) -> torch.dtype:
    return component_dtype(folder / name, full._component_specs[name].type_hint.__name__, wanted, device)


def _is_module(full: Any, name: str) -> bool:
    kind = full._component_specs[name].type_hint
    return isinstance(kind, type) and issubclass(kind, torch.nn.Module)


def _stand_in(full: Any, pipeline: Any, folder: Path) -> None:
    """Give the pipeline what it asks of components that other stages own.

    Pipelines read scale factors, patch sizes and channel counts from the VAE's and the denoiser's configs, and fall
    back to constants when these are absent. Models made from their config on the meta device take no memory. They are
    set past the pipeline's register of components, which decides the device that work is done on.
    """
    for name, spec in full._component_specs.items():
        if getattr(pipeline, name, None) is not None:
            continue
        if spec.default_creation_method == "from_config":
            object.__setattr__(pipeline, name, getattr(full, name))
        elif _is_diffusers_model(spec.type_hint) and (folder / name / "config.json").is_file():
            with init_empty_weights():
                ghost = spec.type_hint.from_config(read_config(folder / name / "config.json"))
            object.__setattr__(pipeline, name, ghost)


def _is_diffusers_model(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, ModelMixin)
