"""Several requests in one stage of a modular pipeline: merged in front, stepped together, taken apart again.

Pipelines take a list of prompts and a list of generators, and every tensor of theirs that belongs to a request has the
requests along its first dimension. So members are merged by concatenation and told apart by slicing. Each draws its noise
from its own generator, so that it begins exactly as it would alone; what the kernels then compute of a larger batch differs
by rounding (1e-5 of the pixel range in float32 at most, over tiny models of all families; see tests/models/test_batches.py).
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import torch
from diffusers.modular_pipelines import PipelineState

from stages.models import snapshot as snapshots
from stages.models.base import OWN_FIELDS, File
from stages.models.cards import STAGES
from stages.models.media import encode_result
from stages.models.state import GENERATOR, initial_state, make_generator, result_of, write_wire
from stages.models.stepper import Stepper
from stages.parcel import Leaf, Parcel, ParcelError, unpack

if TYPE_CHECKING:
    from stages.models.modular import ModularStage

TEXTS: Final = ("prompt", "negative_prompt")


def key_of(params: Mapping[str, Any], inputs: Parcel | None) -> str | None:
    """Equal for requests that can be merged; None for one whose input has something that no other's can be joined to."""
    common = {name: value for name, value in params.items() if name not in OWN_FIELDS and value is not None}
    given = [name for name in TEXTS if params.get(name) is not None]
    try:
        tree = unpack(inputs) if inputs is not None else {}
        form = [(name, _form(value)) for name, value in sorted(_parts(tree).items())]
    except (ParcelError, ValueError):
        return None
    return hashlib.blake2b(repr((sorted(common.items()), given, form)).encode(), digest_size=16).hexdigest()


def _parts(tree: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in tree.items() if name != GENERATOR}


def _form(value: Any) -> Any:
    """What must be the same of all members. Raises ValueError for a tensor that is not a batch of one."""
    if isinstance(value, Leaf):
        if not value.shape or value.shape[0] != 1:
            msg = "not a batch of one"
            raise ValueError(msg)
        return value.dtype, value.shape
    if isinstance(value, list) and any(isinstance(item, Leaf) for item in value):
        if len(value) != 1:
            msg = "not a batch of one"
            raise ValueError(msg)
        return ["any"]  # the pipeline keeps tensors of several lengths in a list
    if isinstance(value, Mapping):
        return sorted((str(key), _form(item)) for key, item in value.items())
    return value


def merge_params(members: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The first member's fields, with a list of all members' texts."""
    merged = dict(members[0])
    for name in TEXTS:
        if merged.get(name) is not None:
            merged[name] = [params[name] for params in members]
    return merged


def merge_wires(wires: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What the stage before sent for each, as if it had sent one batch. Without generators: these stay apart."""
    return {name: _join([wire[name] for wire in wires]) for name in _parts(wires[0])}


def _join(values: list[Any]) -> Any:
    first = values[0]
    if isinstance(first, torch.Tensor):
        return torch.cat(values)
    if isinstance(first, list) and any(isinstance(item, torch.Tensor) for item in first):
        return [item for value in values for item in value]
    if isinstance(first, Mapping):
        return {key: _join([value[key] for value in values]) for key in first}
    return first


class Members:
    """Which of a batch's values belong to its members, and how to take some of them out.

    size: members. like: a single request's values before the first step, by name: a tensor of the same shape there is
    everybody's (the timesteps, of which there may be as many as members). Without it the first dimension decides.
    """

    def __init__(self, size: int, like: Mapping[str, Any] | None = None) -> None:
        self.size = size
        self._like = like or {}

    def pick(self, name: str, value: Any, which: list[int]) -> Any:
        """The value of these members."""
        if isinstance(value, torch.Tensor):
            return value[which] if self._theirs(name, value) else value
        if isinstance(value, list | tuple) and len(value) == self.size and self._listed(name, value):
            return type(value)(value[i] for i in which)
        if isinstance(value, list | tuple):
            return type(value)(self.pick(name, item, which) for item in value)
        return value

    def _theirs(self, name: str, value: torch.Tensor) -> bool:
        if value.ndim == 0 or value.shape[0] != self.size:
            return False
        alone = self._like.get(name)
        return not isinstance(alone, torch.Tensor) or alone.shape != value.shape

    def _listed(self, name: str, value: Any) -> bool:
        """A list with an item a member: of generators, or of tensors of several lengths."""
        alone = self._like.get(name)
        if isinstance(alone, list | tuple):
            return len(alone) != len(value)
        return all(isinstance(item, torch.Generator | torch.Tensor) for item in value)


@dataclass(frozen=True, slots=True)
class Member:
    """One request of a batch: its fields, the values it begins with, and what the stage before sent."""

    params: dict[str, Any]
    initial: dict[str, Any]
    wire: dict[str, Any]


class ModularBatch:
    """Requests of one key in one stage. ``initial``: the values that the batch begins with, texts listed."""

    def __init__(self, model: "ModularStage", members: list[Member], initial: dict[str, Any]) -> None:
        self._model, self._members, self._initial = model, members, initial
        state = initial_state(model.plan, initial, merge_wires([member.wire for member in members]))
        if GENERATOR in initial:
            state.set(GENERATOR, [make_generator(member.params, member.wire) for member in members])
        self.stepper = Stepper(model.pipeline, model.plan.leaves, state)
        self._batch = BatchStepper(self.stepper, len(members), self._alone)

    @property
    def total_steps(self) -> int:
        """As of one request."""
        return self.stepper.total_steps

    @property
    def steps_done(self) -> int:
        """As of one request."""
        return self.stepper.steps_done

    def step(self) -> bool:
        """One step of all. True while more remain."""
        return self.stepper.step()

    def snapshot(self, member: int) -> Parcel:
        """Of the member alone. Raises ParcelError for a loop that cannot be taken apart."""
        return self._batch.snapshot(member, self._model.device)

    def leave(self, member: int) -> None:
        """Go on without it."""
        self._batch.drop(member)

    def finish(self) -> list[Parcel | File]:
        """What later stages need of each; from decode the files."""
        self.stepper.finish()
        return [self._result(place, self._members[at]) for place, at in enumerate(self._batch.present)]

    def _result(self, place: int, member: Member) -> Parcel | File:
        plan, device = self._model.plan, self._model.device
        if plan.stage == STAGES[-1]:
            result = result_of(self.stepper.state)
            return encode_result(result[place : place + 1], self._model.card, member.params)
        state = self._batch.member_state(place)
        for name, value in self._initial.items():
            if self.stepper.state.values.get(name) is value:  # untouched: then it is as the member gave it
                state.values[name] = member.initial.get(name)
        return write_wire(plan, state, member.initial, member.params, device)

    def _alone(self) -> Stepper:
        member = self._members[self._batch.present[0]]
        state = initial_state(self._model.plan, member.initial, member.wire)
        if GENERATOR in member.initial:
            state.set(GENERATOR, make_generator(member.params, member.wire))
        stepper = Stepper(self._model.pipeline, self._model.plan.leaves, state)
        stepper.prepare()
        return stepper


class BatchStepper:
    """A :class:`Stepper` over a merged state, whose members can be copied out and dropped.

    ``alone``: a stepper that is prepared for one member, to tell members' values from those of all.
    """

    def __init__(self, stepper: Stepper, size: int, alone: Callable[[], Stepper]) -> None:
        self.stepper = stepper
        self.present = list(range(size))
        self._alone = alone
        self._likes: tuple[dict[str, Any], dict[str, Any]] | None = None

    def snapshot(self, member: int, device: torch.device) -> Parcel:
        """One member's state, as a job of its own would have it."""
        place = [self.present.index(member)]
        single = Stepper(self.stepper.pipeline, (), self._state(place))
        single.block_state, single.steps_done = self._block(place), self.stepper.steps_done
        return snapshots.take(single, device, self._scheduler(place))

    def drop(self, member: int) -> None:
        """Go on without the member."""
        place = self.present.index(member)
        rest = [i for i in range(len(self.present)) if i != place]
        scheduler = self._scheduler(rest)
        block, state = self._block(rest), self._state(rest)
        self.stepper.block_state, self.stepper.state = block, state
        vars(self.stepper.pipeline.scheduler).update(scheduler)
        del self.present[place]

    def member_state(self, place: int) -> PipelineState:
        """The state after the last step, of the member in this place among those present."""
        values = self.stepper.state.values
        members = Members(len(self.present))
        picked = {name: members.pick(name, value, [place]) for name, value in values.items()}
        generator = picked.get(GENERATOR)
        if isinstance(generator, list):
            picked[GENERATOR] = generator[0]
        return PipelineState(values=picked, kwargs_mapping=dict(self.stepper.state.kwargs_mapping))

    def _like(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """A single request's state and loop state. Preparing it sets the scheduler back, which is undone."""
        if self._likes is None:
            scheduler = self.stepper.pipeline.scheduler
            saved = dict(vars(scheduler))
            alone = self._alone()
            vars(scheduler).clear()
            vars(scheduler).update(saved)
            if not alone.steppable:
                msg = "this pipeline's loop runs in one piece: it cannot be paused"
                raise ParcelError(msg)
            self._likes = dict(alone.state.values), dict(vars(alone.block_state))
        return self._likes

    def _state(self, which: list[int]) -> PipelineState:
        members = Members(len(self.present), self._like()[0])
        values = {name: members.pick(name, value, which) for name, value in self.stepper.state.values.items()}
        return PipelineState(values=_unwrapped(values, which), kwargs_mapping=dict(self.stepper.state.kwargs_mapping))

    def _block(self, which: list[int]) -> Any:
        members = Members(len(self.present), self._like()[1])
        block = self.stepper.block_state
        values = {name: members.pick(name, value, which) for name, value in vars(block).items()}
        if values.get("batch_size") == len(self.present):
            values["batch_size"] = len(which)
        return type(block)(**_unwrapped(values, which))

    def _scheduler(self, which: list[int]) -> dict[str, Any]:
        """Multistep schedulers keep earlier predictions; what has one dimension are the noise levels of all."""
        members = Members(len(self.present))
        state = snapshots.scheduler_state(self.stepper.pipeline.scheduler)
        return {name: _unless_flat(members, name, value, which) for name, value in state.items()}


def _unwrapped(values: dict[str, Any], which: list[int]) -> dict[str, Any]:
    """A single member has its generator as such."""
    generator = values.get(GENERATOR)
    if len(which) == 1 and isinstance(generator, list):
        values[GENERATOR] = generator[0]
    return values


def _unless_flat(members: Members, name: str, value: Any, which: list[int]) -> Any:
    if isinstance(value, list):
        return [_unless_flat(members, name, item, which) for item in value]
    return members.pick(name, value, which) if isinstance(value, torch.Tensor) and value.ndim > 1 else value
