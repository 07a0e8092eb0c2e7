"""What every VAE comes to, and the simplest of them."""

from collections.abc import Mapping
from typing import Any

import msgspec

from planner.facts.tally import TOKENS, Tally

Config = Mapping[str, Any]
MAX_BLOCKS = 64
SQUARE = 9  # cells of a 3×3 kernel


class Autoencoder(msgspec.Struct, frozen=True):
    """Two networks. ``spatial`` and ``temporal``: pixels and frames that a latent position spans along an edge.

    ``widest``: channels of the decoder's largest picture-sized tensor; ``chunk``: pictures it holds at once.
    ``tile``: pixels along an edge beyond which they are decoded in tiles of that size (0: whole).
    """

    encoder: Tally
    decoder: Tally
    spatial: int
    temporal: int
    widest: int
    chunk: int = 1
    bytes_per_value: int = 2
    tile: int = 0


def tiny(c: Config) -> Autoencoder:
    """``AutoencoderTiny``: convolutions and nothing else."""
    widths, blocks, z = list(c["encoder_block_out_channels"]), list(c["num_encoder_blocks"]), c["latent_channels"]
    sane(len(widths), max(blocks))
    at = TOKENS.scaled(4.0 ** (len(blocks) - 1))
    down = Tally()
    for i, count in enumerate(blocks):
        if i:
            at = at.scaled(0.25)
        down.layer(widths[i] if i else c["in_channels"], widths[i], at, bias=not i, kernel=SQUARE)
        down.layer(widths[i], widths[i], at, kernel=SQUARE, times=3 * count)
    down.layer(widths[-1], z, at, kernel=SQUARE)
    widths, blocks, at = list(c["decoder_block_out_channels"]), list(c["num_decoder_blocks"]), TOKENS
    up = Tally()
    up.layer(z, widths[0], at, kernel=SQUARE)
    for i, count in enumerate(blocks):
        last = i == len(blocks) - 1
        up.layer(widths[i], widths[i], at, kernel=SQUARE, times=3 * count)
        if not last:
            at = at.scaled(float(c.get("upsampling_scaling_factor", 2)) ** 2)
        up.layer(widths[i], c["out_channels"] if last else widths[i], at, bias=last, kernel=SQUARE)
    return Autoencoder(down, up, 2 ** (len(c["num_encoder_blocks"]) - 1), 1, widths[-1])


def sane(blocks: int, layers: int) -> None:
    """Raise ValueError for a config that would have us count for ever."""
    if not 0 < blocks <= MAX_BLOCKS or not 0 <= layers <= MAX_BLOCKS:
        msg = "a VAE with that many blocks"
        raise ValueError(msg)
