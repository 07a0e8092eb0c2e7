"""A denoise job between two steps, as plain values: enough to go on elsewhere, bit for bit. No pickle."""

import copy
from collections.abc import Mapping
from typing import Any, Final

import torch
from diffusers.modular_pipelines import PipelineState

from stages.models.stepper import Stepper
from stages.models.tensors import is_plain, pack_values, unpack_values
from stages.parcel import Parcel, ParcelError

_NOT_STATE: Final = frozenset({"_internal_dict"})  # a scheduler's config: every worker has it from the repository
_GENERATOR: Final = "generator"


def take(stepper: Stepper, device: torch.device, scheduler: Mapping[str, Any] | None = None) -> Parcel:
    """Snapshot a job at a step boundary. Raises ParcelError for a loop that cannot be taken apart.

    ``scheduler``: its state, where it is not the pipeline's (of one member of a batch).
    """
    if not stepper.steppable:
        msg = "this pipeline's loop runs in one piece: it cannot be paused"
        raise ParcelError(msg)
    values = {k: v for k, v in stepper.state.values.items() if k != _GENERATOR and v is not None}
    block = {k: v for k, v in vars(stepper.block_state).items() if k != _GENERATOR and is_plain(v)}
    shared = [name for name, value in block.items() if value is not None and values.get(name) is value]
    generator = stepper.state.values.get(_GENERATOR)
    tree = {
        "steps_done": stepper.steps_done,
        "values": values,
        "kinds": {kind: list(dict.fromkeys(names)) for kind, names in stepper.state.kwargs_mapping.items()},
        "block": {name: value for name, value in block.items() if name not in shared},
        "shared": shared,  # held once: the prompt's embeddings are in both
        "scheduler": scheduler_state(stepper.pipeline.scheduler) if scheduler is None else scheduler,
        "generator": None if generator is None else generator.get_state(),
    }
    return pack_values(tree, device)


def restore(stepper: Stepper, snapshot: Parcel, device: torch.device) -> None:
    """Bring a fresh stepper to where the snapshot was taken. Raises ParcelError when it is not one."""
    tree = unpack_values(snapshot, device)
    try:
        state = PipelineState(values=dict(tree["values"]), kwargs_mapping=dict(tree["kinds"]))
        if tree["generator"] is not None:
            generator = torch.Generator("cpu")
            generator.set_state(tree["generator"].cpu())
            state.values[_GENERATOR] = generator
        stepper.state = state
        # Before the loop's own beginning, which may look at the scheduler; and after, should it have changed it.
        vars(stepper.pipeline.scheduler).update(copy.deepcopy(tree["scheduler"]))
        block = tree["block"] | {name: state.values[name] for name in tree["shared"]}
        if _GENERATOR in state.values:
            block[_GENERATOR] = state.values[_GENERATOR]
        stepper.restore(block, int(tree["steps_done"]))
        vars(stepper.pipeline.scheduler).update(tree["scheduler"])
    except (KeyError, TypeError, AttributeError) as err:
        msg = f"the parcel is not a snapshot of this stage: {err!r}"
        raise ParcelError(msg) from err


def scheduler_state(scheduler: Any) -> Mapping[str, Any]:
    """A scheduler's attributes. Raises ParcelError (in packing) when one of them is an object of its own."""
    return {name: value for name, value in vars(scheduler).items() if name not in _NOT_STATE}
