"""Holding weights in fewer bits by diffusers' and transformers' own quantisers, or in the host's memory.

torchao (int8, fp8) and bitsandbytes (nf4) quantise while a component is loaded; only weights are quantised, arithmetic
stays in the component's dtype. Denoisers and text encoders are, VAEs never: there it shows in the picture.
"""

from importlib.util import find_spec
from typing import Any, Final

import torch

from planner.precision import AUTO, FORMATS, FP8_CAPABILITY, is_quantised, split_precision, unfit
from stages.models.base import ModelError

HEAVY: Final = ("transformer", "unet", "text_encoder")  # how the names of such components begin
_DTYPES: Final = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}


def check_precision(precision: str, stage: str, device: torch.device) -> None:
    """Raise ModelError where this machine cannot hold the stage's weights so."""
    base, _ = split_precision(precision)
    problem = unfit(precision, stage)
    if problem:
        raise ModelError(problem)
    if base == AUTO:
        return
    form = FORMATS[base]
    if form.package and find_spec(form.package) is None:
        msg = f"{stage} is to be held in {base}, and {form.package} is not installed: pip install 'disagctl[worker-quant]'"
        raise ModelError(msg)
    if form.gpu and device.type == "cpu":
        msg = f"{stage} is to be held in {base}, which diffusers runs on GPUs only, and this worker has none"
        raise ModelError(msg)
    if base == "fp8" and device.type == "cuda" and torch.cuda.get_device_capability(device) < FP8_CAPABILITY:
        name = torch.cuda.get_device_name(device)
        msg = f"{stage} is to be held in fp8, which {name} cannot compute with (Ada, Hopper and later can): use int8"
        raise ModelError(msg)


def base_dtype(dtype: str, precision: str) -> str:
    """The dtype asked for, as torch calls it, or ``auto``: the precision's own, else the model's."""
    return _DTYPES.get(split_precision(precision)[0], dtype)


def quantisers(names: list[str], libraries: dict[str, str], precision: str, dtypes: dict[str, Any]) -> dict[str, Any]:
    """The quantisation config of each component that is to be quantised. ``libraries``: each component's own."""
    if not is_quantised(precision):
        return {}
    base, _ = split_precision(precision)
    return {name: _config(base, libraries[name], dtypes[name]) for name in names if name.startswith(HEAVY)}


def _config(base: str, library: str, dtype: torch.dtype) -> Any:
    """diffusers and transformers have a class of the same name each, and want their own."""
    if base == "nf4":
        bits = _class(library, "BitsAndBytesConfig")
        return bits(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype)
    from torchao.quantization import Float8WeightOnlyConfig, Int8WeightOnlyConfig

    kinds = {"int8": Int8WeightOnlyConfig, "fp8": Float8WeightOnlyConfig}
    return _class(library, "TorchAoConfig")(kinds[base]())


def _class(library: str, name: str) -> Any:
    import diffusers
    import transformers

    return getattr(diffusers if library == "diffusers" else transformers, name)


def place(pipeline: Any, device: torch.device, precision: str) -> None:
    """Bring the pipeline's components to ``device``; with offload the heavy ones stay behind, and come block by block.

    On the CPU there is nowhere to bring them from.
    """
    if split_precision(precision)[1] and device.type != "cpu":
        offload(pipeline, device, stream=device.type == "cuda")
    pipeline.to(device)  # leaves alone what is offloaded


def offload(pipeline: Any, device: torch.device, *, stream: bool) -> None:
    """Keep heavy components in host memory. ``stream``: copy the next block while this one computes (CUDA)."""
    from diffusers.hooks import apply_group_offloading

    for name, module in pipeline.components.items():
        if isinstance(module, torch.nn.Module) and name.startswith(HEAVY):
            apply_group_offloading(
                module,
                onload_device=device,
                offload_device=torch.device("cpu"),
                offload_type="block_level",
                num_blocks_per_group=1,
                use_stream=stream,
                block_modules=_containers(module),
            )
    # A modular pipeline (diffusers 0.39) takes the device its first component rests on for the one that computes.
    kind = type(pipeline)
    pipeline.__class__ = type(kind.__name__, (kind,), {"_execution_device": property(lambda _: device)})


def _containers(module: torch.nn.Module) -> list[str]:
    """Names of the modules that must be entered to come to the lists of blocks (T5's ``encoder``, CLIP's ``text_model``)."""
    names: dict[str, None] = dict.fromkeys(getattr(module, "_group_offload_block_modules", None) or ())
    for path, part in module.named_modules():
        if isinstance(part, torch.nn.ModuleList) and not any(piece.isdecimal() for piece in path.split(".")):
            names.update(dict.fromkeys(path.split(".")[:-1]))
    return list(names)
