"""Adding up a network layer by layer: its parameters, and the multiply-accumulates of one forward pass.

Layers are computed at a number of positions that grows with the request. It is a :class:`Grid`, a linear form in three
amounts: positions of the first frame, positions of the frames after it, and one.
"""

import msgspec


class Grid(msgspec.Struct, frozen=True):
    """How many positions: ``first``·(tokens of the first frame) + ``later``·(tokens of later frames) + ``fixed``."""

    first: float = 0.0
    later: float = 0.0
    fixed: float = 0.0

    def __add__(self, other: "Grid") -> "Grid":
        return Grid(self.first + other.first, self.later + other.later, self.fixed + other.fixed)

    def scaled(self, space: float, time: float = 1.0) -> "Grid":
        """``space`` times as many positions a frame, ``time`` times as many frames after the first."""
        return Grid(self.first * space, self.later * space * time, self.fixed)


TOKENS = Grid(first=1.0, later=1.0)  # of the picture or clip
ONCE = Grid(fixed=1.0)  # a vector for the whole request: timestep, pooled prompt, modulation
NOWHERE = Grid()  # weights that are loaded but not used by the pass counted here


def fixed(count: float) -> Grid:
    """A number of positions that does not depend on the request's size (text tokens)."""
    return Grid(fixed=count)


class Tally:
    """Parameters, and multiply-accumulates of one pass; attention's products apart from the layers'."""

    def __init__(self) -> None:
        self.params = 0
        self.matrices = 0  # of the parameters, those that a quantiser takes: weights of linear layers
        self.block = 0  # parameters of the largest repeated block
        self.listed = 0  # of the parameters, those in repeated blocks
        self.linear = [0.0, 0.0, 0.0]  # × 1, first-frame tokens, all tokens
        self.attention = [0.0, 0.0, 0.0, 0.0]  # × 1, all tokens, first-frame × all tokens, all tokens²

    def weights(self, count: int) -> None:
        """Parameters whose arithmetic is negligible: norms, embeddings, tables."""
        self.params += count

    def layer(self, inputs: int, outputs: int, at: Grid, *, bias: bool = True, kernel: int = 1, times: int = 1) -> None:
        """``times`` linear layers, or convolutions whose kernel has so many cells."""
        cells = inputs * outputs * kernel
        self.params += times * (cells + (outputs if bias else 0))
        self.matrices += times * cells if kernel == 1 else 0
        macs = float(times * cells)
        self.linear[0] += macs * at.fixed
        self.linear[1] += macs * (at.first - at.later)
        self.linear[2] += macs * at.later

    @property
    def streamed(self) -> int:
        """Parameters that are on the GPU at once when blocks come one by one from the host: two blocks, and all else."""
        return min(2 * self.block + self.params - self.listed, self.params)

    def attend(self, width: int, queries: Grid, keys: Grid, times: int = 1) -> None:
        """Every query against every key, scores and values: 2·width multiply-accumulates a pair.

        The grids must not treat the first frame apart.
        """
        macs = 2.0 * width * times
        self.attention[0] += macs * queries.fixed * keys.fixed
        self.attention[1] += macs * (queries.later * keys.fixed + queries.fixed * keys.later)
        self.attention[3] += macs * queries.later * keys.later

    def attend_within_frames(self, width: int, at: Grid, times: int = 1) -> None:
        """Attention of each frame's positions to those of the same frame."""
        self.attention[2] += 2.0 * width * times * at.first * at.later

    def add(self, other: "Tally", times: int = 1) -> None:
        """Add another network, so many of it."""
        self.params += other.params * times
        self.matrices += other.matrices * times
        self.block = max(self.block, other.block, other.params if times > 1 else 0)
        self.listed += other.params * times if times > 1 else other.listed
        self.linear = [a + b * times for a, b in zip(self.linear, other.linear, strict=True)]
        self.attention = [a + b * times for a, b in zip(self.attention, other.attention, strict=True)]


def mlp(tally: Tally, width: int, hidden: int, at: Grid, *, out: int | None = None, bias: bool = True) -> None:
    """Two layers: width → hidden → out (width)."""
    tally.layer(width, hidden, at, bias=bias)
    tally.layer(hidden, width if out is None else out, at, bias=bias)


def gated_mlp(tally: Tally, width: int, hidden: int, at: Grid, *, bias: bool = False) -> None:
    """Gate, up and down."""
    tally.layer(width, hidden, at, bias=bias, times=2)
    tally.layer(hidden, width, at, bias=bias)
