"""A group of processes that share a denoiser's attention: diffusers' context parallelism (Ulysses), set up and undone.

Each process holds all weights and a slice of the sequence; attention heads are exchanged by all-to-all (DeepSpeed-Ulysses,
https://arxiv.org/abs/2309.14509), the output is gathered, and the scheduler's step is computed by all, so that all have
the same latents after it. NCCL on CUDA, gloo on the CPU. The processes of a group are on one host and meet over a file in a
private folder; no object is ever pickled: only tensors go through the group.
"""

import datetime
from pathlib import Path
from typing import Any, Final

import torch
import torch.distributed as dist
from diffusers import ContextParallelConfig, ModelMixin
from diffusers.hooks.context_parallel import remove_context_parallel

from stages.models.base import ModelError

BACKEND: Final = "native"  # scaled_dot_product_attention


def spreadable(pipeline: Any) -> list[Any]:
    """The components whose sequence can be split. Raises ModelError where there is none."""
    parts = pipeline.components.values()
    found = [part for part in parts if isinstance(part, ModelMixin) and getattr(part, "_cp_plan", None) is not None]
    if not found:
        msg = "diffusers cannot split this model's denoiser over several GPUs: leave gpus_per_replica at 1"
        raise ModelError(msg)
    return found


def join(
    pipeline: Any, folder: str, group: str, rank: int, degree: int, device: torch.device, timeout_s: float
) -> None:
    """Be ``rank`` of ``degree``; returns when all are there. Raises RuntimeError when one does not come in time."""
    store = dist.FileStore(str(Path(folder) / group), degree)
    dist.init_process_group(
        "nccl" if device.type == "cuda" else "gloo",
        store=store,
        rank=rank,
        world_size=degree,
        timeout=datetime.timedelta(seconds=timeout_s),
    )
    for part in spreadable(pipeline):
        part.set_attention_backend(BACKEND)
        part.enable_parallelism(config=ContextParallelConfig(ulysses_degree=degree))


def leave(pipeline: Any) -> None:
    """Compute alone again. Harmless where there is no group."""
    if not dist.is_initialized():
        return
    for part in spreadable(pipeline):
        if getattr(part, "_parallel_config", None) is not None:
            remove_context_parallel(part, part._cp_plan)
            part._parallel_config = None
            for processor in (getattr(module, "processor", None) for module in part.modules()):
                if processor is not None and hasattr(processor, "_parallel_config"):
                    processor._parallel_config = None
    dist.destroy_process_group()
