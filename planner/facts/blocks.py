"""Blocks that several families of diffusion transformers share."""

from planner.facts.tally import ONCE, TOKENS, Grid, Tally, fixed, mlp

TIME_CHANNELS = 256  # of diffusers' timestep embedding


def pooled_time(t: Tally, d: int, pooled: int, times: int = 1) -> None:
    """Embeddings of the timestep (and of the guidance scale: ``times`` 2) and of the pooled prompt."""
    for _ in range(times):
        mlp(t, TIME_CHANNELS, d, ONCE, out=d)
    mlp(t, pooled, d, ONCE, out=d)


def two_streams(d: int, text: int, norms: int, ratio: float = 4.0) -> Tally:
    """A block with weights of their own for picture and text, and joint attention."""
    block = Tally()
    for grid in (TOKENS, fixed(text)):
        block.layer(d, 6 * d, ONCE)
        block.layer(d, d, grid, times=4)
        mlp(block, d, int(d * ratio), grid)
    both = TOKENS + fixed(text)
    block.attend(d, both, both)
    block.weights(norms)
    return block


def one_stream(d: int, both: Grid, norms: int, ratio: float = 4.0) -> Tally:
    """A block with attention and MLP side by side, over picture and text together."""
    block = Tally()
    hidden = int(d * ratio)
    block.layer(d, 3 * d, ONCE)
    block.layer(d, d, both, times=3)
    block.layer(d, hidden, both)
    block.layer(d + hidden, d, both)
    block.attend(d, both, both)
    block.weights(norms)
    return block


def final(t: Tally, d: int, outputs: int) -> None:
    """Modulated norm, and back to the latent's channels."""
    t.layer(d, 2 * d, ONCE)
    t.layer(d, outputs, TOKENS)
