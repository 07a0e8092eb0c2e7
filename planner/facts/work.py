"""The work of a model's stages as a function of the shape."""

from collections.abc import Iterable

import msgspec

from planner.domain import ModelFacts, Shape, StageCost, StageFacts

PFLOP = 1e15
_COMPRESSED_PICTURE = 1.5  # bytes a pixel of a PNG
_COMPRESSED_VIDEO = 0.03  # bytes a voxel of H.264


class StageWork(msgspec.Struct, frozen=True):
    """One stage. ``params``: (component, count). ``edge``, ``frames``: pixels and frames that a position spans.

    FLOP of one pass with n positions in the first frame and N in all: linear·(1, n, N) + attention·(1, N, n·N, N²).
    ``resident``: bytes of activations for each position of one frame, and of all. ``matrices``: parameters that can be
    quantised; ``streamed``: that are on the GPU at once when offloaded. ``part``: from which to which share of the steps.
    ``tile``: positions of a frame that are computed at once, at most (0: all).
    """

    stage: str
    kind: str
    params: tuple[tuple[str, int], ...]
    linear: tuple[float, float, float]
    attention: tuple[float, float, float, float]
    edge: int
    frames: int
    resident: tuple[float, float] = (0.0, 0.0)
    bytes_per_param: float = 2.0
    matrices: int = 0
    streamed: int = 0
    tile: int = 0
    part: tuple[float, float] = (0.0, 1.0)

    def positions(self, shape: Shape) -> tuple[int, int]:
        """(of the first frame, of all frames)."""
        first = -(-shape.width // self.edge) * -(-shape.height // self.edge)
        return first, first * (1 + -(-(shape.frames - 1) // self.frames))

    def flops(self, shape: Shape) -> tuple[float, float]:
        """(linear, attention) FLOP of one pass."""
        n, total = self.positions(shape)
        linear = sum(c * x for c, x in zip(self.linear, (1.0, n, total), strict=True))
        products = (1.0, total, float(n) * total, float(total) * total)
        return linear, sum(c * x for c, x in zip(self.attention, products, strict=True))

    def steps(self, shape: Shape) -> int:
        """How many of the request's steps are this stage's."""
        begin, end = (min(int(share * shape.steps) + 1, shape.steps) if share else 0 for share in self.part)
        return end - begin

    @property
    def count(self) -> int:
        """Parameters of all components."""
        return sum(count for _, count in self.params)


class ModelWork(msgspec.Struct, frozen=True):
    """A model's stages in order. ``guided``: the prompt to stay away from is encoded too."""

    stages: tuple[StageWork, ...]
    guided: bool
    video: bool
    latent_channels: int
    text_bytes: int
    family: str

    def passes(self, work: StageWork, shape: Shape) -> int:
        """Passes of a denoiser, or one expert, for a request."""
        return work.steps(shape) * (2 if shape.guidance else 1)

    def facts(self, model: str, shapes: Iterable[Shape], origin: str = "") -> ModelFacts:
        """In the planner's words, for these shapes."""
        listed = tuple(dict.fromkeys(shapes))
        stages = tuple(
            StageFacts(
                stage=work.stage,
                kind=work.kind,
                params_b=work.count / 1e9,
                weights_gib=work.count * work.bytes_per_param / 2**30,
                linear_share=work.matrices / work.count,
                streamed_gib=(work.streamed or work.count) * work.bytes_per_param / 2**30,
                costs=tuple(self._cost(work, shape) for shape in listed),
            )
            for work in self.stages
        )
        return ModelFacts(model, stages, origin)

    def _cost(self, work: StageWork, shape: Shape) -> StageCost:
        linear, attention = work.flops(shape)
        n, total = work.positions(shape)
        voxels = shape.width * shape.height * shape.frames
        latent = self.stages[-1].positions(shape)[1] * self.latent_channels * 4
        file = voxels * (_COMPRESSED_VIDEO if self.video else _COMPRESSED_PICTURE)
        output = self.text_bytes if work.stage == "encode" else latent if work.kind == "transformer" else file
        return StageCost(
            shape=shape,
            linear_pflop=linear / PFLOP,
            attention_pflop=attention / PFLOP,
            passes=self.passes(work, shape) if work.kind == "transformer" else 1,
            megavoxels=voxels / 1e6 if work.kind == "vae" else 0.0,
            activation_gib=(work.resident[0] * min(n, work.tile or n) + work.resident[1] * total) / 2**30,
            output_mib=output / 2**20,
        )
