"""Serving any family that diffusers has a modular pipeline for, one stage at a time.

No family is named here: stages, components and wire follow from what the pipeline's blocks declare
(:mod:`stages.models.blocks`), the loop is driven step by step (:mod:`stages.models.stepper`).
"""

import copy
import gc
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import torch

from stages.models import batch, experts
from stages.models import snapshot as snapshots
from stages.models.base import File, Job, ModelCard, ModelError, RequestError, StageModel
from stages.models.blocks import StagePlan, is_loop, open_pipeline, plan_stage, steps_in_order
from stages.models.cards import EXPERTS, INDEX, SPREADABLE, STAGES, read_card, read_config
from stages.models.checks import check, input_image
from stages.models.guidance import Guidance
from stages.models.loading import (
    free,
    load_stage,
    needed_components,
    parse_device,
    peak_bytes,
    prepare_process,
)
from stages.models.media import encode_result
from stages.models.quantise import check_precision
from stages.models.spread import SpreadStage, check_spreadable
from stages.models.state import (
    GENERATOR,
    initial_state,
    initial_values,
    make_generator,
    read_wire,
    result_of,
    write_wire,
)
from stages.models.stepper import Stepper
from stages.models.weights import configs, fetch, is_model_id
from stages.parcel import Parcel
from stages.protocol import ModelSource

MAX_BATCH: Final = 64  # memory ends sooner; a batch that does not fit is computed one by one
T = TypeVar("T")


class ModularAdapter:
    """Entry point ``modular``."""

    def supports(self, source: ModelSource) -> bool:
        """Whether diffusers maps the repository's pipeline class to a modular one that makes what the class does."""
        if not is_model_id(source):
            return False
        folder = configs(source)
        if read_config(folder / INDEX).get("expand_timesteps"):
            return False  # Wan 2.2 TI2V 5B: each latent frame has its own timestep, which modular Wan does not know
        return _has_modular(folder)

    def card(self, source: ModelSource, folder: Path | None = None) -> ModelCard:
        """From the repository's JSON files."""
        return read_card(folder or configs(source), source.options)

    def load(self, source: ModelSource, stage: str, device: str) -> StageModel:
        """Load the components that the stage's blocks expect. Raises ModelError."""
        where = parse_device(device)
        prepare_process(where)
        folder = configs(source)
        card = read_card(folder, source.options)
        check_precision(source.precision, stage, where)
        full = open_pipeline(folder)
        plan = plan_stage(full, card.workflow, stage)
        fetch(source, folder, needed_components(full, plan))
        loaded = ModularStage(card, plan, load_stage(full, plan, folder, source, where), where)
        if source.ranks == 1:
            return loaded
        check_spreadable(source, stage, SPREADABLE)
        return SpreadStage(loaded, source, stage, where)


class ModularStage:
    """One loaded stage of a modular pipeline."""

    def __init__(self, card: ModelCard, plan: StagePlan, pipeline: Any, device: torch.device) -> None:
        self.card = card
        self.plan = plan
        self.device = device
        self.pipeline = pipeline
        self.peak_bytes = peak_bytes(device)
        self.ignores = _ignored(plan)
        self.preemptible = any(is_loop(block) and steps_in_order(block) for _, block in plan.leaves)
        self._guidance = Guidance(pipeline)

    def start(self, params: dict[str, Any], inputs: Parcel | None) -> Job:
        """Begin a request. Raises RequestError for what the model cannot do."""
        check(params, self.card)
        if self.plan.stage == experts.LOW and inputs is not None:
            return self.resume(params, inputs)  # what the other expert hands on is its snapshot
        initial = self._initial(params)
        wire = self._wire(inputs)
        image = input_image(inputs, self.card, params) if self.plan.stage == STAGES[0] else None
        if image is not None:
            initial["image"] = image
        state = initial_state(self.plan, initial, wire)
        if GENERATOR in initial:
            state.set(GENERATOR, make_generator(params, wire))
        stepper = Stepper(self.pipeline, self.plan.leaves, state)
        _blaming_request(stepper.prepare)
        return self._job(params, initial, stepper)

    @property
    def max_batch(self) -> int:
        """A bound on what a request costs to merge."""
        return MAX_BATCH

    def batch_key(self, params: dict[str, Any], inputs: Parcel | None) -> str | None:
        """Of requests that differ in their texts and seeds only. None where there is an input picture, or a second expert."""
        first = self.plan.stage == STAGES[0]
        if self.plan.stage in EXPERTS or (first and (inputs is not None or self.card.needs_image)):
            return None
        return batch.key_of(params, inputs)

    def start_batch(self, requests: Sequence[tuple[dict[str, Any], Parcel | None]]) -> batch.ModularBatch:
        """Begin requests of one key. Raises RequestError, without a word on which is at fault."""
        for params, _ in requests:
            check(params, self.card)
        members = [batch.Member(params, self._initial(params), self._wire(inputs)) for params, inputs in requests]
        merged = self._initial(batch.merge_params([member.params for member in members]))
        job = batch.ModularBatch(self, members, merged)
        _blaming_request(job.stepper.prepare)
        return job

    def _wire(self, inputs: Parcel | None) -> dict[str, Any]:
        return {} if self.plan.stage == STAGES[0] else read_wire(inputs, self.device)

    def resume(self, params: dict[str, Any], snapshot: Parcel) -> Job:
        """Go on from a snapshot of this stage, taken here or by another worker."""
        initial = self._initial(params)
        stepper = Stepper(self.pipeline, self.plan.leaves, initial_state(self.plan, {}, {}))
        snapshots.restore(stepper, snapshot, self.device)
        return self._job(params, initial, stepper)

    def guide(self, params: dict[str, Any]) -> None:
        """Have the pipeline guide as the request wants."""
        self._guidance.apply(params, keep_negative=self.plan.stage == STAGES[0] and self.plan.needs_negative)

    def park(self) -> None:
        """Keep the weights in the host's memory only."""
        self.pipeline.to("cpu")
        free(self.device)

    def unpark(self) -> None:
        """Back onto the device."""
        self.pipeline.to(self.device)

    def unload(self) -> None:
        """Drop the weights."""
        self.pipeline = None
        self._guidance = Guidance(None)
        gc.collect()
        free(self.device)

    def _job(self, params: dict[str, Any], initial: dict[str, Any], stepper: Stepper) -> "ModularJob":
        if self.plan.stage != experts.HIGH:
            return ModularJob(self, params, initial, stepper)
        stepper.stop_at(experts.first_steps(self.pipeline, stepper.block_state.timesteps))
        return FirstExpertJob(self, params, initial, stepper)

    def _initial(self, params: dict[str, Any]) -> dict[str, Any]:
        """Set the request's guidance, and collect the values it begins with."""
        self.guide(params)
        initial = initial_values(self.plan, params, self.card)
        if self._guidance.present:
            initial.pop("guidance_scale", None)
        return initial


class ModularJob:
    """One request in one stage."""

    def __init__(self, model: ModularStage, params: dict[str, Any], initial: dict[str, Any], stepper: Stepper) -> None:
        self._model = model
        self._params = params
        self._initial = initial
        self._stepper = stepper
        self._scheduler: dict[str, Any] = {}

    @property
    def total_steps(self) -> int:
        """Denoise steps; 1 for a stage without a loop, or with one that cannot be taken apart."""
        return self._stepper.total_steps

    @property
    def steps_done(self) -> int:
        """Steps computed so far."""
        return self._stepper.steps_done

    def step(self) -> bool:
        """Compute one step. True while more remain."""
        return _blaming_request(self._stepper.step) if self.steps_done == 0 else self._stepper.step()

    def snapshot(self) -> Parcel:
        """State of blocks, scheduler and generator. Raises ParcelError for a loop that cannot be taken apart."""
        return snapshots.take(self._stepper, self._model.device)

    def suspend(self) -> None:
        """Put the scheduler's state aside: all jobs of the stage share it."""
        self._scheduler = copy.deepcopy(dict(snapshots.scheduler_state(self._model.pipeline.scheduler)))

    def revive(self) -> None:
        """Bring guidance and scheduler back to where this job left them."""
        self._model.guide(self._params)
        scheduler = vars(self._model.pipeline.scheduler)
        scheduler.update(copy.deepcopy(self._scheduler))  # the loop's beginning may look at it
        self._stepper.enter()
        scheduler.update(self._scheduler)  # and may have changed it
        self._scheduler = {}

    def finish(self) -> Parcel | File:
        """What later stages need; from decode the finished file."""
        state = self._stepper.finish()
        if self._model.plan.stage != STAGES[-1]:
            return write_wire(self._model.plan, state, self._initial, self._params, self._model.device)
        return encode_result(result_of(state), self._model.card, self._params)


class FirstExpertJob(ModularJob):
    """The steps down to the boundary."""

    def finish(self) -> Parcel | File:
        """The snapshot at the boundary, which the second expert takes up."""
        return self.snapshot()


def _ignored(plan: StagePlan) -> frozenset[str] | None:
    """Request fields that the encode stage's output does not depend on: the seed, unless one of its blocks draws from it."""
    if plan.stage != STAGES[0]:
        return None
    taken = {item.name for _, block in plan.leaves for item in block.inputs}
    inputs = {"fps": "fps", "output_format": "output_format", "seed": GENERATOR}
    return frozenset(field for field, name in inputs.items() if name not in taken)


def _blaming_request(call: Callable[[], T]) -> T:
    """Pipelines check their inputs by ValueError: on another worker the same request would fail the same way."""
    try:
        return call()
    except ValueError as err:
        raise RequestError(str(err)) from err


def _has_modular(folder: Path) -> bool:
    """Opening a pipeline reads only its configs: the surest way to know whether there is one."""
    try:
        full = open_pipeline(folder)
        plan_stage(full, read_card(folder).workflow, STAGES[1])
    except ModelError:
        return False
    return bool(full.blocks is not None)
