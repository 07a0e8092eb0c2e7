"""Serving families that have only a classic pipeline, one stage at a time (see :mod:`stages.models.families`)."""

import copy
import gc
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import diffusers
import torch
from diffusers import PipelineQuantizationConfig

from stages.models.base import File, Job, ModelCard, ModelError, RequestError, StageModel
from stages.models.cards import INDEX, STAGES, compression, read_card, read_config
from stages.models.checks import check
from stages.models.families import Family, families
from stages.models.loading import free, parse_device, peak_bytes, prepare_process, with_dtype
from stages.models.media import encode_image, encode_video, to_uint8
from stages.models.precision import component_dtype
from stages.models.quantise import base_dtype, check_precision, place, quantisers
from stages.models.snapshot import scheduler_state
from stages.models.tensors import pack_values, unpack_values
from stages.models.weights import configs, fetch, is_model_id
from stages.parcel import Parcel, ParcelError
from stages.protocol import ModelSource

_LATENTS: Final = "latents"


class ClassicAdapter:
    """Entry point ``classic``."""

    def supports(self, source: ModelSource) -> bool:
        """Whether a family serves the repository."""
        return is_model_id(source) and _family(configs(source)) is not None

    def card(self, source: ModelSource, folder: Path | None = None) -> ModelCard:
        """From the repository's JSON files."""
        return read_card(folder or configs(source), source.options)

    def load(self, source: ModelSource, stage: str, device: str) -> StageModel:
        """Load the components of one stage. Raises ModelError."""
        where = parse_device(device)
        prepare_process(where)
        folder = configs(source)
        family = _family(folder)
        if family is None:
            msg = f"the classic adapter serves {', '.join(f.pipeline_class for f in families())}, not {source.id}"
            raise ModelError(msg)
        if stage not in family.components:
            msg = f"{family.pipeline_class} has no stage {stage!r}; it has {', '.join(family.components)}"
            raise ModelError(msg)
        if source.ranks > 1:
            msg = f"{source.name} ({family.pipeline_class}) cannot be spread over several GPUs: remove gpus_per_replica"
            raise ModelError(msg)
        check_precision(source.precision, stage, where)
        fetch(source, folder, family.components[stage])
        pipe = _load(family, stage, folder, source, where)
        return ClassicStage(read_card(folder, source.options), family, stage, pipe, where)


class ClassicStage:
    """One loaded stage of a classic pipeline."""

    def __init__(self, card: ModelCard, family: Family, stage: str, pipe: Any, device: torch.device) -> None:
        self.card = card
        self.family = family
        self.stage = stage
        self.pipe = pipe
        self.device = device
        self.peak_bytes = peak_bytes(device)
        self.preemptible = stage == STAGES[1]

    @torch.no_grad()
    def start(self, params: dict[str, Any], inputs: Parcel | None) -> Job:
        """Begin a request. Raises RequestError for what the model cannot do."""
        check(params, self.card)
        if self.stage == STAGES[0]:
            return EncodeJob(self, params)
        wire = {} if inputs is None else unpack_values(inputs, self.device)
        if self.stage == STAGES[2]:
            return DecodeJob(self, params, wire)
        generator = torch.Generator("cpu").manual_seed(int(params.get("seed") or 0))
        try:
            return DenoiseJob(self, self.family.begin(self.pipe, params, wire, generator))
        except KeyError as err:
            msg = f"the parcel was not made by the encode stage of this pipeline: it lacks {err}"
            raise ParcelError(msg) from err

    def resume(self, params: dict[str, Any], snapshot: Parcel) -> Job:
        """Go on from a snapshot of the denoise stage, taken here or by another worker."""
        tree = unpack_values(snapshot, self.device)
        if self.stage != STAGES[1] or not tree.keys() >= {"values", "scheduler", "steps_done"}:
            msg = "the parcel is not a snapshot of this stage"
            raise ParcelError(msg)
        vars(self.pipe.scheduler).update(tree["scheduler"])
        return DenoiseJob(self, tree["values"], tree["steps_done"])

    def park(self) -> None:
        """Keep the weights in the host's memory only."""
        self.pipe.to("cpu")
        free(self.device)

    def unpark(self) -> None:
        """Back onto the device."""
        self.pipe.to(self.device)

    def unload(self) -> None:
        """Drop the weights."""
        self.pipe = None
        gc.collect()
        free(self.device)


class _OneStep:
    """A job that does its work in a single step."""

    total_steps = 1

    def __init__(self) -> None:
        self.steps_done = 0

    def snapshot(self) -> Parcel:
        """There is no boundary to pause at."""
        msg = "this stage runs in one piece: it cannot be paused"
        raise ParcelError(msg)


class EncodeJob(_OneStep):
    """Prompt → embeddings."""

    def __init__(self, model: ClassicStage, params: Mapping[str, Any]) -> None:
        super().__init__()
        self._model = model
        self._params = params
        self._result: dict[str, Any] = {}

    @torch.no_grad()
    def step(self) -> bool:
        """Encode the prompt."""
        try:
            self._result = self._model.family.encode(self._model.pipe, self._params)
        except ValueError as err:
            raise RequestError(str(err)) from err
        self.steps_done = 1
        return False

    def finish(self) -> Parcel:
        """The embeddings."""
        return pack_values(self._result, self._model.device)


class DenoiseJob:
    """The loop, step by step. ``values`` is all it works on besides the scheduler's state."""

    def __init__(self, model: ClassicStage, values: dict[str, Any], steps_done: int = 0) -> None:
        self._model = model
        self._values = values
        self.steps_done = steps_done
        self.total_steps = len(values["timesteps"])
        self._scheduler: dict[str, Any] = {}

    @torch.no_grad()
    def step(self) -> bool:
        """One denoise step. True while more remain."""
        self._model.family.step(self._model.pipe, self._values, self.steps_done)
        self.steps_done += 1
        return self.steps_done < self.total_steps

    def suspend(self) -> None:
        """Put the scheduler's state aside: all jobs of the stage share it."""
        self._scheduler = copy.deepcopy(dict(scheduler_state(self._model.pipe.scheduler)))

    def revive(self) -> None:
        """Bring the scheduler back to where this job left it."""
        vars(self._model.pipe.scheduler).update(self._scheduler)
        self._scheduler = {}

    def snapshot(self) -> Parcel:
        """The loop's values and the scheduler's state."""
        state = scheduler_state(self._model.pipe.scheduler)
        tree = {"values": self._values, "scheduler": state, "steps_done": self.steps_done}
        return pack_values(tree, self._model.device)

    def finish(self) -> Parcel:
        """The latents."""
        return pack_values({_LATENTS: self._values[_LATENTS]}, self._model.device)


class DecodeJob(_OneStep):
    """Latents → a file."""

    def __init__(self, model: ClassicStage, params: Mapping[str, Any], wire: Mapping[str, Any]) -> None:
        super().__init__()
        if _LATENTS not in wire:
            msg = "the parcel was not made by the denoise stage of this pipeline: it has no latents"
            raise ParcelError(msg)
        self._model = model
        self._params = params
        self._latents = wire[_LATENTS]
        self._pixels: Any = None

    @torch.no_grad()
    def step(self) -> bool:
        """Decode the latents."""
        self._pixels = to_uint8(self._model.family.decode(self._model.pipe, self._latents))
        self.steps_done = 1
        return False

    def finish(self) -> File:
        """The encoded picture or video."""
        card, params = self._model.card, self._params
        if card.modality == "video":
            return encode_video(
                self._pixels, params.get("fps") or card.defaults.get("fps"), params.get("output_format")
            )
        return encode_image(self._pixels, params.get("output_format"))


def _family(folder: Path) -> Family | None:
    index = read_config(folder / INDEX)
    return next((family for family in families() if family.serves(index)), None)


def _load(family: Family, stage: str, folder: Path, source: ModelSource, device: torch.device) -> Any:
    index = read_config(folder / INDEX)
    names = [name for name, value in index.items() if isinstance(value, list) and value[0] is not None]
    mine = family.components[stage]
    wanted = base_dtype(source.dtype, source.precision)
    dtypes = {name: component_dtype(folder / name, index[name][1], wanted, device) for name in mine if name in index}
    others: dict[str, Any] = {name: None for name in names if name not in mine}
    libraries = {name: index[name][0] for name in dtypes}
    quantised = quantisers(list(dtypes), libraries, source.precision, dtypes)
    if quantised:
        others["quantization_config"] = PipelineQuantizationConfig(quant_mapping=quantised)
    try:
        pipe = getattr(diffusers, family.pipeline_class).from_pretrained(
            str(folder), local_files_only=True, use_safetensors=True, **others, **with_dtype(dtypes)
        )
    except (OSError, ValueError, TypeError) as err:
        msg = f"diffusers {diffusers.__version__} cannot load {stage} of {folder}: {err}"
        raise ModelError(msg) from err
    missing = [name for name in mine if getattr(pipe, name, None) is None]
    if missing:
        msg = f"{family.pipeline_class}: {', '.join(missing)} could not be loaded"
        raise ModelError(msg)
    spatial, temporal = compression(read_config(folder / "vae" / "config.json"))
    # Without its VAE the pipeline falls back to constants.
    pipe.vae_scale_factor_spatial, pipe.vae_scale_factor_temporal = spatial, temporal
    place(pipe, device, source.precision)
    return pipe
