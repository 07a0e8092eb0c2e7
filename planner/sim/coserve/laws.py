"""How long a step takes, by size, batch and degree: the laws that the simulated GPUs follow, and that policies predict with.

One step of a batch b on d GPUs: ``step_s · (fixed + b·(1 − fixed)·work(r)·(serial + (1 − serial)/d))`` with
``work(r) = linear·r + (1 − linear)·r²`` and r the tokens over those of the shape that was timed: the FLOPs of a diffusion
transformer (the same law as :mod:`planner.facts.perf`), Amdahl's for the degree, a fixed share for the batch.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from planner.domain import Role, Shape
from planner.run.orders import Job

ENCODE, DENOISE, DECODE, WHOLE = "encode", "denoise", "decode", "whole"
STAGES: Final = (ENCODE, DENOISE, DECODE)
PATCH: Final = 16  # pixels a token covers in each direction
FRAMES: Final = 4  # frames a latent frame covers
LEAST_LOAD_S: Final = 1.0


class Size(msgspec.Struct, frozen=True):
    """Pixels and frames."""

    width: int
    height: int
    frames: int = 1


class ModelProfile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One model on one type of GPU; seconds and shares as in the module's text, ``at``: the shape that was timed."""

    name: str
    weights_gib: Mapping[str, float]
    encode_s: float
    step_s: float
    at: Size
    linear: float
    fixed: float
    serial: float
    decode_s_per_megavoxel: float
    source: str = ""


class Costs(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Seconds: a hand-off to another GPU; a snapshot resumed where it is, and elsewhere; another degree."""

    hop_s: float = 0.02
    resume_s: float = 0.05
    move_s: float = 0.2
    regroup_s: float = 0.1


class SloRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Isolated latency: on the greatest of ``degrees`` that makes use of so much of its GPUs."""

    efficiency: float = 0.75
    degrees: tuple[int, ...] = (1, 2, 4, 8)


class Profiles(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Everything that is known of the GPU and the models."""

    accelerator: str
    memory_gib: float
    load_gib_per_s: float
    active_gib_per_ktoken: float
    models: tuple[ModelProfile, ...]
    costs: Costs = Costs()
    slo: SloRule = SloRule()


def tokens(shape: Shape | Size) -> float:
    """Of the denoiser's sequence."""
    return ((shape.frames - 1) // FRAMES + 1) * (shape.width / PATCH) * (shape.height / PATCH)


class Laws:
    """:class:`planner.run.orders.Times` by the profiles. Remembers what it computed: shapes are few."""

    def __init__(self, profiles: Profiles) -> None:
        self.profiles = profiles
        self._models = {model.name: model for model in profiles.models}
        self._steps: dict[tuple[Role, Shape, int, int], float] = {}

    def step_s(self, role: Role, accelerator: str, shape: Shape, batch: int = 1, degree: int = 1) -> float | None:
        """As in the protocol."""
        key = (role, shape, batch, degree)
        found = self._steps.get(key)
        if found is None:
            found = self._steps[key] = self._step_s(*key)
        return found

    def _step_s(self, role: Role, shape: Shape, batch: int, degree: int) -> float:
        model = self._models[role.model]
        if role.stage == ENCODE:
            return model.encode_s * batch
        if role.stage == DECODE:
            return model.decode_s_per_megavoxel * shape.width * shape.height * shape.frames / 1e6 * batch
        ratio = tokens(shape) / tokens(model.at)
        work = model.linear * ratio + (1 - model.linear) * ratio**2
        split = model.serial + (1 - model.serial) / degree
        seconds = model.step_s * (model.fixed + batch * (1 - model.fixed) * work * split)
        if role.stage == WHOLE:  # encoding and decoding, spread over the steps
            ends = self._step_s(Role(role.model, ENCODE), shape, batch, 1)
            seconds += (ends + self._step_s(Role(role.model, DECODE), shape, batch, 1)) / shape.steps
        return seconds

    def stage_s(self, role: Role, accelerator: str, shape: Shape, degree: int = 1) -> float | None:
        """As in the protocol."""
        step = self.step_s(role, accelerator, shape, 1, degree)
        return None if step is None else step * (shape.steps if role.stage in {DENOISE, WHOLE} else 1)

    def own_step_s(self, role: Role, accelerator: str, shape: Shape, degree: int) -> float | None:
        """As in the protocol."""
        return self.step_s(role, accelerator, shape, 1, degree)

    def resume_s(self, job: Job, worker: str) -> float:
        """As in the protocol."""
        costs = self.profiles.costs
        if job.held_by in {"", worker}:
            return costs.resume_s if job.begun else 0.0
        return costs.move_s if job.begun else costs.hop_s

    def load_s(self, role: Role, accelerator: str) -> float:
        """As in the protocol."""
        return max(self.weights_gib(role) / self.profiles.load_gib_per_s, LEAST_LOAD_S)

    def weights_gib(self, role: Role) -> float:
        """As in the protocol."""
        held = self._models[role.model].weights_gib
        return sum(held.values()) if role.stage == WHOLE else held[role.stage]

    def active_gib(self, role: Role, shape: Shape, batch: int = 1, degree: int = 1) -> float:
        """As in the protocol."""
        if role.stage == ENCODE:
            return 0.5
        return self.profiles.active_gib_per_ktoken * tokens(shape) / 1000 * batch / degree

    # --- of whole requests ---

    def gpu_s(self, model: str, shape: Shape) -> float:
        """GPU-seconds of a request on one GPU."""
        return sum(self.stage_s(Role(model, stage), "", shape) or 0.0 for stage in STAGES)

    def isolated_s(self, model: str, shape: Shape) -> float:
        """Latency of a request alone on the fleet (:class:`SloRule`)."""
        rule, role = self.profiles.slo, Role(model, DENOISE)
        alone = self.step_s(role, "", shape) or 0.0
        useful = [
            d for d in rule.degrees if alone / ((self.step_s(role, "", shape, 1, d) or 1.0) * d) >= rule.efficiency
        ]
        ends = sum(self.stage_s(Role(model, stage), "", shape) or 0.0 for stage in (ENCODE, DECODE))
        return ends + (self.stage_s(role, "", shape, max(useful, default=1)) or 0.0)


def stages_of(whole: bool) -> Sequence[str]:
    """The stages of a request, or the one that stands for all of them."""
    return (WHOLE,) if whole else STAGES
