"""A model that waits instead of computing: for tests, simulations made real, and measuring the overhead of serving.

Its options are the ``stages:`` mapping of the spec, in pipeline order; every key has a default of nothing::

    {"encode": {"seconds": 0.05, "out_bytes": 8388608, "load_s": 2, "weights_gib": 1},
     "denoise": {"seconds": 1.0, "steps": 4}, "decode": {"artifact_bytes": 100000}}

What it hands on is a function of the seed, the prompt, the step count and *every byte* it was handed, so a corrupted or
mixed-up hand-off shows in the bytes of the final picture. No torch here, and tens of microseconds a stage when
``seconds`` is zero.
"""

import hashlib
import os
import random
import time
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import msgspec
import xxhash

from stages.models import png
from stages.models.base import File, ModelCard, ModelError, StageModel
from stages.parcel import Leaf, Parcel, pack, unpack
from stages.protocol import INLINE_BYTES, ModelSource

ID: Final = "synthetic"
DEFAULT_STAGES: Final = ("encode", "denoise", "decode")
_SIDE: Final = 8  # pixels of the final picture
_CRASH_CODE: Final = 9
_WINDOW: Final = 64  # where in the cached noise an output may begin, in units of _STRIDE bytes
_STRIDE: Final = 64


class StageOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How one synthetic stage behaves.

    seconds: of one request, in ``steps`` equal steps, whatever the request asks for. seconds_per_step: instead, each of
    the request's ``num_inference_steps`` (``steps`` where it names none) takes this long. out_bytes: size of the tensor
    handed on. artifact_bytes: the final picture is padded to at least this. load_s: time to load. unpark_s: time to come
    back from the host's memory, where its weights then wait while the worker has another role; without it they are
    dropped. max_batch: requests that it computes at once. batch_growth: a batch of n takes 1 + (n - 1)·batch_growth times as
    long as one. reads: false: it goes by the checksums of what it is handed, which the transport has verified, instead of by
    the bytes. exchange: with n GPUs a replica (which it does not use) a step takes 1/n + (n - 1)·exchange times as long as
    on one. weights_gib: reported as peak memory; allocated only with ``allocate``. fail_prompt / crash_prompt: a request
    whose prompt contains this text raises RuntimeError / ends the process with code 9.
    """

    seconds: float = 0.0
    seconds_per_step: float | None = None
    steps: int = 1
    out_bytes: int = 0
    artifact_bytes: int = 0
    load_s: float = 0.0
    unpark_s: float | None = None
    max_batch: int = 64
    batch_growth: float = 1.0
    reads: bool = True
    exchange: float = 0.0
    weights_gib: float = 0.0
    allocate: bool = False
    fail_prompt: str | None = None
    crash_prompt: str | None = None

    def share_of(self, gpus: int) -> float:
        """How long a step takes on so many GPUs, over what it takes on one."""
        return 1 / gpus + (gpus - 1) * self.exchange


def parse(options: bytes) -> dict[str, StageOptions]:
    """The stages and their options, in pipeline order. Raises ModelError naming the key at fault."""
    try:
        stages = msgspec.json.decode(options or b"{}", type=dict[str, StageOptions])
    except msgspec.DecodeError as err:
        msg = f"options of the synthetic model: {err}"
        raise ModelError(msg) from err
    for name, opts in stages.items():
        amounts = (opts.seconds, opts.seconds_per_step or 0.0, opts.out_bytes, opts.artifact_bytes, opts.load_s)
        others = (opts.unpark_s or 0.0, opts.weights_gib, opts.batch_growth, opts.exchange)
        if min(*amounts, *others) < 0 or min(opts.steps, opts.max_batch) < 1:
            msg = f"options of the synthetic model: {name}: amounts must not be negative, nor steps or max_batch less than 1"
            raise ModelError(msg)
    return stages or {name: StageOptions() for name in DEFAULT_STAGES}


class SyntheticAdapter:
    """Serves the model id ``synthetic``."""

    def supports(self, source: ModelSource) -> bool:
        """Whether the id says so."""
        return source.id == ID

    def card(self, source: ModelSource, folder: Path | None = None) -> ModelCard:
        """A text-to-image model with the stages of the options."""
        stages = parse(source.options)
        steps = max(opts.steps for opts in stages.values())
        return ModelCard(
            stages=tuple(stages),
            modality="image",
            workflow="text2image",
            size_multiple=1,
            defaults={"width": 512, "height": 512, "num_inference_steps": steps, "guidance_scale": 0.0},
        )

    def load(self, source: ModelSource, stage: str, device: str) -> StageModel:
        """Wait ``load_s``. Raises ModelError for a stage the options do not have."""
        stages = parse(source.options)
        if stage not in stages:
            msg = f"the synthetic model has no stage {stage!r}; it has {', '.join(stages)}"
            raise ModelError(msg)
        kind = SyntheticStage if stages[stage].unpark_s is None else ParkableStage
        return kind(stage, stages[stage], last=stage == list(stages)[-1], gpus=source.ranks)


class SyntheticStage:
    """One stage of the synthetic model."""

    def __init__(self, name: str, options: StageOptions, *, last: bool, gpus: int = 1) -> None:
        self.options = options
        self.last, self.gpus = last, gpus
        made = max(options.out_bytes, options.artifact_bytes)
        self.peak_bytes = int(options.weights_gib * (1 << 30))
        self.light = not (options.seconds or options.seconds_per_step) and made <= INLINE_BYTES
        self.ignores = frozenset({"seed"}) if name == DEFAULT_STAGES[0] and not last else None
        self.preemptible = options.steps > 1 or options.seconds_per_step is not None
        self._salt = name.encode()[:16].ljust(16, b"\0")
        self._weights = b"\x01" * self.peak_bytes if options.allocate else b""
        if options.load_s:
            time.sleep(options.load_s)

    def start(self, params: dict[str, Any], inputs: Parcel | None) -> "SyntheticJob":
        """Begin a request; reads ``seed`` (as in real models, not to encode), ``prompt`` and ``num_inference_steps``."""
        begin_s = time.monotonic()
        seed = params.get("seed") if self.ignores is None else None
        words = (seed, params.get("prompt"), params.get("num_inference_steps"))
        state = hashlib.blake2b(repr(words).encode(), digest_size=32, salt=self._salt)
        if inputs is not None:
            state.update(inputs.tree)
            for desc, buffer in zip(inputs.tensors, inputs.buffers, strict=True):
                state.update(xxhash.xxh3_128_digest(buffer) if self.options.reads else b"%d" % desc.checksum)
        return SyntheticJob(self, params, state.digest(), 0, begin_s)

    def resume(self, params: dict[str, Any], snapshot: Parcel) -> "SyntheticJob":
        """Go on where the snapshot was taken."""
        values = unpack(snapshot)
        return SyntheticJob(self, params, values["digest"], values["steps_done"], time.monotonic())

    @property
    def max_batch(self) -> int:
        """As its options say."""
        return self.options.max_batch

    def batch_key(self, params: dict[str, Any], inputs: Parcel | None) -> str | None:
        """The step count."""
        own = None if self.options.seconds_per_step is None else params.get("num_inference_steps")
        return str(own or self.options.steps)

    def start_batch(self, requests: Sequence[tuple[dict[str, Any], Parcel | None]]) -> "SyntheticBatch":
        """Begin requests of one step count."""
        return SyntheticBatch([self.start(params, inputs) for params, inputs in requests])

    def unload(self) -> None:
        """Drop the allocated weights, if any."""
        self._weights = b""


class ParkableStage(SyntheticStage):
    """One whose weights can wait in the host's memory."""

    def park(self) -> None:
        """Nothing to do: they are there."""

    def unpark(self) -> None:
        """Wait ``unpark_s``."""
        time.sleep(self.options.unpark_s or 0.0)


class SyntheticJob:
    """One request in one synthetic stage."""

    __slots__ = ("_degree", "_digest", "_due_s", "_made", "_pause_s", "_prompt", "_stage", "steps_done", "total_steps")

    def __init__(
        self, stage: SyntheticStage, params: dict[str, Any], digest: bytes, steps_done: int, begin_s: float
    ) -> None:
        options = stage.options
        self.steps_done = steps_done
        if options.seconds_per_step is None:
            self.total_steps = options.steps
            self._pause_s = options.seconds / options.steps
        else:
            self.total_steps = params.get("num_inference_steps") or options.steps
            self._pause_s = options.seconds_per_step
        self._stage = stage
        self._degree = stage.gpus
        self._due_s = begin_s  # when the last step was over; what hashing and waking up took is part of the next one
        self._digest = digest
        self._prompt = params.get("prompt")
        self._made: Parcel | File | None = None

    def step(self) -> bool:
        """Wait one step's time. True while more remain."""
        self.misbehave()
        self.prepare()
        self.wait()
        return self.advance()

    def prepare(self) -> None:
        """Before the last step's time passes: make the result, which takes part of that time and none beside it."""
        if self.steps_done + 1 == self.total_steps:
            self._made = self._make()

    def wait(self, batch: int = 1) -> None:
        """Let a step's time pass, of so many requests at once."""
        if self._pause_s:
            options = self._stage.options
            self._due_s += self._pause_s * (1 + (batch - 1) * options.batch_growth) * options.share_of(self._degree)
            time.sleep(max(0.0, self._due_s - time.monotonic()))

    def spread(self, degree: int) -> None:
        """Wait as so many GPUs would compute, from the next step on."""
        self._degree = max(1, min(degree, self._stage.gpus))

    def advance(self) -> bool:
        """A step is over. True while more remain."""
        self.steps_done += 1
        return self.steps_done < self.total_steps

    def suspend(self) -> None:
        """Nothing is shared."""

    def revive(self) -> None:
        """The next step begins now."""
        self._due_s = time.monotonic()

    def snapshot(self) -> Parcel:
        """The digest of the input and the steps done."""
        return pack({"digest": self._digest, "steps_done": self.steps_done})

    def finish(self) -> Parcel | File:
        """``out_bytes`` of noise chosen by the digest; from the last stage the picture."""
        return self._make() if self._made is None else self._made

    def _make(self) -> Parcel | File:
        options = self._stage.options
        if self._stage.last:
            rgb = hashlib.shake_128(self._digest).digest(_SIDE * _SIDE * 3)
            return File("image/png", png.picture(_SIDE, _SIDE, rgb, options.artifact_bytes))
        values: dict[str, Any] = {"digest": self._digest}
        if options.out_bytes:
            begin = self._digest[0] % _WINDOW * _STRIDE
            data = _noise(options.out_bytes)[begin : begin + options.out_bytes]
            values["payload"] = Leaf((options.out_bytes,), "uint8", data)
        return pack(values)

    def misbehave(self) -> None:
        """Fail, if the prompt asks for it."""
        options = self._stage.options
        if options.crash_prompt and options.crash_prompt in (self._prompt or ""):
            os._exit(_CRASH_CODE)
        if options.fail_prompt and options.fail_prompt in (self._prompt or ""):
            msg = "the synthetic model was told to fail on this prompt"
            raise RuntimeError(msg)


class SyntheticBatch:
    """Requests of one step count at once."""

    def __init__(self, jobs: list[SyntheticJob]) -> None:
        self._jobs = dict(enumerate(jobs))
        self._clock = jobs[-1]  # it began last
        self.total_steps = jobs[0].total_steps
        self.steps_done = 0

    def step(self) -> bool:
        """Wait one step's time. True while more remain."""
        for job in self._jobs.values():
            job.misbehave()
            job.prepare()
        self._clock.wait(len(self._jobs))
        self.steps_done += 1
        return any([job.advance() for job in self._jobs.values()])  # noqa: C419  # all of them

    def snapshot(self, member: int) -> Parcel:
        """As of the member alone."""
        return self._jobs[member].snapshot()

    def leave(self, member: int) -> None:
        """One less."""
        del self._jobs[member]

    def finish(self) -> list[Parcel | File]:
        """As of each alone."""
        return [job.finish() for job in self._jobs.values()]


@lru_cache(maxsize=8)
def _noise(nbytes: int) -> memoryview:
    """Fixed random bytes, longer than ``nbytes`` by the window: outputs differ in where they begin, without a copy."""
    return memoryview(random.Random(nbytes).randbytes(nbytes + _WINDOW * _STRIDE)).toreadonly()  # noqa: S311
