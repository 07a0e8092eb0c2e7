"""The protocol an inference engine implements to be served by disagctl. No torch here: implement it with anything.

An *adapter* is found by entry point (group ``disagctl.adapters``). It is asked, in a worker process, to load one stage of
one model, and then runs requests through it step by step. Everything that crosses between stages is a
:class:`stages.parcel.Parcel`. One request is computed at a time and from one thread, so no locking is needed.

    adapter.load(source, "denoise", "cuda:0") -> StageModel
    job = model.start(params, inputs)          # or model.resume(params, snapshot)
    while job.step(): ...                      # progress, cancel, pause between steps
    result = job.finish()                      # a Parcel for the next stage, or the finished File
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol, runtime_checkable

from stages.parcel import Parcel
from stages.protocol import ModelSource

# Request fields in which the members of a batch may differ: texts, and what concerns one member only.
OWN_FIELDS: Final = frozenset({"prompt", "negative_prompt", "seed", "fps", "output_format"})


class RequestError(ValueError):
    """The request itself cannot be computed (a size the model does not take …): no other worker would do better.

    ``param`` names the request field at fault, where one is.
    """

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class ModelError(RuntimeError):
    """The model cannot be loaded, and a retry will not help. The message says what to do."""


@dataclass(frozen=True, slots=True)
class File:
    """What the last stage makes."""

    mime: str
    data: bytes


@dataclass(frozen=True, slots=True)
class ModelCard:
    """What can be said of a model without its weights.

    stages: in order. modality: image | video. workflow: text2image, image2video … defaults: request fields and the value
    used when a request leaves them out (width, height, num_frames, fps, num_inference_steps, guidance_scale …).
    size_multiple: width and height must be multiples of it. frames_multiple: num_frames must be k·frames_multiple + 1.
    """

    stages: tuple[str, ...]
    modality: str
    workflow: str
    size_multiple: int = 8
    frames_multiple: int = 1
    needs_image: bool = False
    defaults: dict[str, Any] = field(default_factory=dict)


class Job(Protocol):
    """One request inside one stage. Stages without a loop have ``total_steps`` 1."""

    @property
    def total_steps(self) -> int:
        """Number of ``step`` calls until the job is computed."""

    @property
    def steps_done(self) -> int:
        """Steps computed so far; after ``resume`` it starts where the snapshot was taken."""

    def step(self) -> bool:
        """Compute one step. True while more remain."""

    def snapshot(self) -> Parcel:
        """Everything needed to go on elsewhere, at a step boundary. Bit-exact on the same kind of device."""

    def finish(self) -> Parcel | File:
        """The stage's result, after the last step: a Parcel for the next stage, a File from the last one."""


@runtime_checkable
class Suspendable(Job, Protocol):
    """A job that can wait on the device while its stage computes others. Optional: without it one resumes from a snapshot."""

    def suspend(self) -> None:
        """At a step boundary: put aside what it shares with other jobs of the stage (a scheduler's state …)."""

    def revive(self) -> None:
        """Put that back; the next ``step`` goes on as if nothing had been between."""


@runtime_checkable
class Spreadable(Job, Protocol):
    """A job that can be computed on several GPUs. Optional: the stage says how many it has."""

    def spread(self, degree: int) -> None:
        """Be computed on so many from the next ``step`` on; on all where there are fewer."""


class StageModel(Protocol):
    """One loaded stage.

    A stage whose jobs can be paused between steps says so by an attribute ``preemptible``.

    Where its output is a function of ``params`` and ``inputs`` alone, the stage may have an attribute ``ignores``: the
    request fields (the seed …) that the output does not depend on. The worker then computes equal requests only once.

    One whose ``start``, ``step`` and ``finish`` together never take more than a fraction of a millisecond may say so by an
    attribute ``light``: it is then computed on the thread that talks to the head, which must not be held up.
    """

    def start(self, params: dict[str, Any], inputs: Parcel | None) -> Job:
        """Begin a request. ``params``: the gateway's validated fields. Raises RequestError for what it can't do."""

    def resume(self, params: dict[str, Any], snapshot: Parcel) -> Job:
        """Go on from a snapshot taken by this or another worker of the same stage."""

    def unload(self) -> None:
        """Free memory, also on the device; the object is not used again."""


@runtime_checkable
class Parkable(StageModel, Protocol):
    """A stage that can wait in the host's memory while its worker does another's work. Optional for an adapter."""

    def park(self) -> None:
        """Free the device's memory, keep the weights in the host's."""

    def unpark(self) -> None:
        """Back onto the device, ready to ``start``."""


class BatchJob(Protocol):
    """Several requests inside one stage, computed together. Members are named by their place in what it was started with."""

    @property
    def total_steps(self) -> int:
        """Number of ``step`` calls until all are computed."""

    @property
    def steps_done(self) -> int:
        """Steps computed so far."""

    def step(self) -> bool:
        """Compute one step of every member. True while more remain."""

    def snapshot(self, member: int) -> Parcel:
        """What the member's own ``Job`` would have given at this step boundary, for ``StageModel.resume``."""

    def leave(self, member: int) -> None:
        """The member is no longer computed, from this step boundary on. The last one does not leave."""

    def finish(self) -> list[Parcel | File]:
        """The results of those that have not left, in order."""


@runtime_checkable
class Batching(StageModel, Protocol):
    """A stage that computes several requests at once faster than one after another. Optional for an adapter.

    Results may differ from those of single requests by rounding, so a service batches only where its spec says so.
    """

    @property
    def max_batch(self) -> int:
        """Most requests in a batch."""

    def batch_key(self, params: dict[str, Any], inputs: Parcel | None) -> str | None:
        """Requests with equal keys can be computed together; None: this one only alone. Cheap, raises nothing."""

    def start_batch(self, requests: Sequence[tuple[dict[str, Any], Parcel | None]]) -> BatchJob:
        """Begin requests of one key. Raises RequestError when one of them is at fault, without saying which."""


@runtime_checkable
class Adapter(Protocol):
    """An engine. Instances are made without arguments and hold no state."""

    def supports(self, source: ModelSource) -> bool:
        """Whether this adapter would serve the model, judged from its files without loading weights."""

    def card(self, source: ModelSource, folder: Path | None) -> ModelCard:
        """Describe the model. ``folder``: the local snapshot (configs at least), None for models without files."""

    def load(self, source: ModelSource, stage: str, device: str) -> StageModel:
        """Load the weights that this stage needs and no others. Raises ModelError."""
