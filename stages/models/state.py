"""A stage's values: where they begin, what arrives on the wire, what goes out on it."""

from collections.abc import Mapping
from typing import Any, Final

import torch
from diffusers.modular_pipelines import PipelineState

from stages.models.base import ModelCard, ModelError
from stages.models.blocks import StagePlan
from stages.models.tensors import pack_values, unpack_values
from stages.parcel import Parcel, ParcelError

GENERATOR: Final = "generator"
_VALUES: Final = "values"
_KINDS: Final = "kinds"
_RESULTS: Final = ("images", "videos")
# Request fields that pipelines know by another name.
_ALIASES: Final = {"frame_rate": "fps"}


def initial_values(plan: StagePlan, params: Mapping[str, Any], card: ModelCard) -> dict[str, Any]:
    """Every input of the whole pipeline, from the request or by the pipeline's default."""
    values = {}
    for item in plan.inputs:
        given = params.get(item.name, params.get(_ALIASES.get(item.name, item.name)))
        values[item.name] = item.default if given is None else given
    if "output_type" in values:
        values["output_type"] = "np" if card.modality == "video" else "pil"
    return values


def initial_state(plan: StagePlan, initial: Mapping[str, Any], wire: Mapping[str, Any]) -> PipelineState:
    """The state a stage begins with: the request's values, overlaid by what earlier stages made of them."""
    state = PipelineState()
    kinds = {item.name: item.kind for item in plan.inputs}
    for name, value in initial.items():
        state.set(name, value, kinds.get(name))
    members = {name: kind for kind, names in wire.get(_KINDS, {}).items() for name in names}
    for name, value in wire.get(_VALUES, {}).items():
        state.set(name, value, members.get(name))
    return state


def make_generator(params: Mapping[str, Any], wire: Mapping[str, Any]) -> torch.Generator:
    """The request's random numbers: from where the earlier stage left them, else from its seed.

    On the CPU whatever the device, so that a seed gives the same noise everywhere.
    """
    generator = torch.Generator("cpu")
    if GENERATOR in wire:
        generator.set_state(wire[GENERATOR].cpu())
    else:
        generator.manual_seed(int(params.get("seed") or 0))
    return generator


def read_wire(inputs: Parcel | None, device: torch.device) -> dict[str, Any]:
    """What the previous stage sent. Raises ParcelError when it is not from a stage of ours."""
    wire = {} if inputs is None else unpack_values(inputs, device)
    if inputs is not None and not (isinstance(wire.get(_VALUES), dict) and isinstance(wire.get(_KINDS), dict)):
        msg = "the parcel was not made by the previous stage of this pipeline"
        raise ParcelError(msg)
    return wire


def write_wire(
    plan: StagePlan, state: PipelineState, initial: Mapping[str, Any], params: Mapping[str, Any], device: torch.device
) -> Parcel:
    """What later stages need and cannot know from the request: outputs, inputs changed on the way, values passed on.

    The generator goes along where a later stage takes one and this stage, or one before it, drew from it. Raises
    ModelError when a value is no tensor nor plain.
    """
    names = set(plan.later)
    for kind in plan.later_kinds:
        names.update(state.kwargs_mapping.get(kind, ()))
    values = {
        name: value
        for name, value in state.values.items()
        if name in names and name != GENERATOR and value is not None and not _same(value, initial.get(name))
    }
    kinds = {kind: [n for n in dict.fromkeys(members) if n in values] for kind, members in state.kwargs_mapping.items()}
    wire: dict[str, Any] = {_VALUES: values, _KINDS: {kind: members for kind, members in kinds.items() if members}}
    generator = state.values.get(GENERATOR)
    if generator is not None and GENERATOR in names:
        now = generator.get_state()
        if not torch.equal(now, make_generator(params, {}).get_state()):
            wire[GENERATOR] = now
    try:
        return pack_values(wire, device)
    except ParcelError as err:  # not ParcelError: the input is not at fault
        msg = f"the {plan.stage} stage cannot hand on its result: {err}"
        raise ModelError(msg) from err


def result_of(state: PipelineState) -> Any:
    """What the last stage made: a list of pictures or videos."""
    return next(state.values[name] for name in _RESULTS if state.values.get(name) is not None)


def _same(value: Any, initial: Any) -> bool:
    if value is initial:
        return True
    return isinstance(value, bool | int | float | str) and type(value) is type(initial) and value == initial
