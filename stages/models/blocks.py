"""Cutting a diffusers modular pipeline into stages, with no table of families.

A modular pipeline is a sequence of named blocks that declare their inputs, outputs and components. Everything before
the block called ``denoise`` is the encode stage, everything after it the decode stage. What crosses from one stage to
the next follows from the declarations: what later stages take as input.
"""

import inspect
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from diffusers import ModularPipeline
from diffusers.modular_pipelines import SequentialPipelineBlocks
from diffusers.modular_pipelines.modular_pipeline import LoopSequentialPipelineBlocks

from stages.models.base import ModelError
from stages.models.cards import EXPERTS, STAGES

DENOISE: Final = "denoise"


@dataclass(frozen=True, slots=True)
class Input:
    """An input of the whole pipeline; ``kind`` is diffusers' ``kwargs_type``, a name for a group of inputs."""

    name: str
    default: Any
    kind: str | None


@dataclass(frozen=True, slots=True)
class StagePlan:
    """One stage of a pipeline.

    leaves: its blocks in order, containers expanded, loops and conditional blocks whole. inputs: of the whole pipeline,
    so that every stage begins from the same values and defaults as one process would. later: names of what later
    stages read. later_kinds: groups of inputs that they read. needs_negative: a later stage requires negative
    embeddings even when guidance is off. foreign: components that its blocks name and another stage owns.
    """

    stage: str
    leaves: tuple[tuple[str, Any], ...]
    inputs: tuple[Input, ...]
    later: frozenset[str]
    later_kinds: frozenset[str]
    needs_negative: bool
    foreign: frozenset[str] = frozenset()

    def blocks(self) -> Any:
        """The stage's blocks as one sequence, as a pipeline wants them."""
        return SequentialPipelineBlocks.from_blocks_dict(dict(self.leaves))


def open_pipeline(folder: Path) -> Any:
    """The model's modular pipeline with no weights. Raises ModelError when it has none, or points elsewhere."""
    try:
        pipeline = ModularPipeline.from_pretrained(str(folder), trust_remote_code=False, local_files_only=True)
    except (ValueError, OSError, AttributeError, KeyError, ImportError, NameError) as err:
        # NameError: what diffusers 0.39 stumbles into when it has no blocks for a pipeline class.
        msg = f"diffusers cannot open {folder} as a modular pipeline: {err}"
        raise ModelError(msg) from err
    for name, spec in pipeline._component_specs.items():
        origin = spec.pretrained_model_name_or_path
        if origin and spec.default_creation_method == "from_pretrained" and Path(origin) != folder:
            msg = f"{folder}: component {name} is to be fetched from {origin!r}; only what is in the repository is used"
            raise ModelError(msg)
    return pipeline


def plan_stage(pipeline: Any, workflow: str, stage: str) -> StagePlan:
    """Cut one stage out, or one expert's part of ``denoise``. Raises ModelError when there is no such stage or workflow."""
    if stage in EXPERTS:
        both = plan_stage(pipeline, workflow, DENOISE)
        others = frozenset(owned for expert, owned in EXPERTS.items() if expert != stage)
        return replace(both, stage=stage, foreign=others)
    root = select_workflow(pipeline.blocks, workflow)
    leaves = list(_leaves(root))
    stages = _assign([name for name, _ in leaves])
    if stage not in stages:
        msg = f"{type(pipeline).__name__} has no stage {stage!r}; it has {', '.join(dict.fromkeys(stages))}"
        raise ModelError(msg)
    mine = tuple(leaf for leaf, name in zip(leaves, stages, strict=True) if name == stage)
    after = STAGES.index(stage)
    later = [block for (_, block), name in zip(leaves, stages, strict=True) if STAGES.index(name) > after]
    inputs = [param for block in later for param in block.inputs]
    return StagePlan(
        stage=stage,
        leaves=mine,
        inputs=tuple(Input(param.name, param.default, param.kwargs_type) for param in root.inputs if param.name),
        later=frozenset(param.name for param in inputs if param.name),
        later_kinds=frozenset(param.kwargs_type for param in inputs if param.kwargs_type),
        needs_negative=any(param.required and str(param.name).startswith("negative_") for param in inputs),
    )


def select_workflow(blocks: Any, workflow: str) -> Any:
    """The blocks that run for one workflow, where a pipeline knows several. Raises ModelError for one it lacks."""
    known = getattr(blocks, "_workflow_map", None)
    if not known:
        return blocks
    if workflow not in known:
        msg = f"{type(blocks).__name__} has no workflow {workflow!r}; it has {', '.join(known)}"
        raise ModelError(msg)
    return blocks.get_workflow(workflow)


def is_loop(block: Any) -> bool:
    """Whether the block is a loop over its sub-blocks."""
    return isinstance(block, LoopSequentialPipelineBlocks)


def steps_in_order(loop: Any) -> bool:
    """Whether the loop goes through its timesteps one by one, as its blocks' arguments tell; else it goes through chunks."""
    return all({"i", "t"} <= inspect.signature(block.__call__).parameters.keys() for block in loop.sub_blocks.values())


def _leaves(blocks: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, block in blocks.sub_blocks.items():
        path = f"{prefix}{name}"
        if is_loop(block) or hasattr(block, "select_block") or not block.sub_blocks:
            yield path, block
        else:
            yield from _leaves(block, f"{path}.")


def _assign(paths: list[str]) -> list[str]:
    """The stage of each block, by where it stands relative to ``denoise``."""
    stages, seen = [], False
    for path in paths:
        here = path.split(".", 1)[0] == DENOISE
        seen = seen or here
        stages.append(STAGES[1] if here else STAGES[2] if seen else STAGES[0])
    return stages
