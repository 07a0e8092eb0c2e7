"""Parameters and arithmetic of VAEs, block by block as diffusers builds them.

Grids are in latent positions: a Wan latent of F frames decodes to 4·(F - 1) + 1 pictures, so that the first frame is
counted apart (:class:`planner.facts.tally.Grid`). An ``Autoencoder`` has the decoder's pass and the encoder's.
"""

from collections.abc import Callable
from itertools import pairwise

import msgspec

from planner.facts.autoencoder_tiny import SQUARE, Autoencoder, Config, sane, tiny
from planner.facts.tally import TOKENS, Grid, Tally

CUBE = 27  # cells of a 3×3×3 kernel


class _Kind(msgspec.Struct, frozen=True):
    """What differs between 2D and 3D: cells of a kernel, of a norm, of a resampling layer; parameters a norm channel."""

    kernel: int
    norm: int


FLAT = _Kind(SQUARE, 2)
WAN = _Kind(CUBE, 1)
HUNYUAN = _Kind(CUBE, 2)


def kl(c: Config) -> Autoencoder:
    """``AutoencoderKL`` (Stable Diffusion, FLUX, Z-Image)."""
    return _classic(c, FLAT, [(0.25, 1.0)] * (len(c["block_out_channels"]) - 1), bool(c.get("use_quant_conv", True)))


def hunyuan(c: Config) -> Autoencoder:
    """``AutoencoderKLHunyuanVideo``: the same in 3D; the last levels before the bottom also halve the time.

    Its attention, over all frames at once, is counted within frames: larger clips are decoded in tiles.
    """
    levels = len(c["block_out_channels"])
    space, time = c["spatial_compression_ratio"].bit_length() - 1, c["temporal_compression_ratio"].bit_length() - 1
    steps = [(0.25 if i < space else 1.0, 0.5 if i >= levels - 1 - time else 1.0) for i in range(levels - 1)]
    made = _classic(c, HUNYUAN, steps, quant=True)
    return msgspec.structs.replace(made, chunk=4 * made.temporal, tile=256)  # diffusers' tiles: 256 pixels, 16 frames


def _classic(c: Config, kind: _Kind, steps: list[tuple[float, float]], quant: bool) -> Autoencoder:
    widths, layers, z = list(c["block_out_channels"]), c["layers_per_block"], c["latent_channels"]
    sane(len(widths), layers)
    attention = bool(c.get("mid_block_add_attention", True))
    full = TOKENS
    for space, time in steps:
        full = full.scaled(1 / space, 1 / time)
    down, at, width = Tally(), full, widths[0]
    down.layer(c["in_channels"], width, at, kernel=kind.kernel)
    for i, wide in enumerate(widths):
        for _ in range(layers):
            _resnet(down, width, wide, at, kind)
            width = wide
        if i < len(steps):
            at = at.scaled(*steps[i])
            down.layer(width, width, at, kernel=kind.kernel)
    _middle(down, width, at, kind, attention)
    down.weights(2 * width)
    down.layer(width, 2 * z, at, kernel=kind.kernel)
    up, at, width = Tally(), TOKENS, widths[-1]
    up.layer(z, width, at, kernel=kind.kernel)
    _middle(up, width, at, kind, attention)
    for i, wide in enumerate(reversed(widths)):
        for _ in range(layers + 1):
            _resnet(up, width, wide, at, kind)
            width = wide
        if i < len(steps):
            # In 3D the decoder grows the time at the same indices, counted from its own bottom.
            space, time = steps[i]
            at = at.scaled(1 / space, 1 / time)
            up.layer(width, width, at, kernel=kind.kernel)
    up.weights(2 * width)
    up.layer(width, c["out_channels"], at, kernel=kind.kernel)
    if quant:
        down.layer(2 * z, 2 * z, TOKENS)
        up.layer(z, z, TOKENS)
    spatial, temporal = 1.0, 1.0
    for space, time in steps:
        spatial, temporal = spatial / space, temporal / time
    widest = widths[min(1, len(widths) - 1)]
    return Autoencoder(down, up, round(spatial**0.5), round(temporal), widest)


def wan(c: Config) -> Autoencoder:
    """``AutoencoderKLWan`` (2.1, and 2.2's with averaging short cuts) and ``AutoencoderKLQwenImage``."""
    base, mult, layers, z = c["base_dim"], list(c["dim_mult"]), c["num_res_blocks"], c["z_dim"]
    sane(len(mult), layers)
    thick, residual = list(c["temperal_downsample"]), bool(c.get("is_residual"))
    colours = c.get("in_channels") or c.get("input_channels") or 3
    top = TOKENS
    for flag in thick:
        top = top.scaled(4.0, 2.0 if flag else 1.0)
    widths = [base * m for m in [1, *mult]]
    down, at, width = Tally(), top, widths[0]
    down.layer(colours, width, at, kernel=CUBE)
    for i, wide in enumerate(widths[1:]):
        for _ in range(layers):
            _resnet(down, width, wide, at, WAN)
            width = wide
        if i < len(mult) - 1:
            at = _shrink(down, width, at, in_time=thick[i])
    _middle(down, width, at, WAN, attention=True)
    down.weights(width)
    down.layer(width, 2 * z, at, kernel=CUBE)
    down.layer(2 * z, 2 * z, at)
    widths = [(c.get("decoder_base_dim") or base) * m for m in [mult[-1], *reversed(mult)]]
    up, at, width = Tally(), TOKENS, widths[0]
    up.layer(z, z, at)
    up.layer(z, width, at, kernel=CUBE)
    _middle(up, width, at, WAN, attention=True)
    for i, (enters, wide) in enumerate(pairwise(widths)):
        width = enters // 2 if i > 0 and not residual else enters
        for _ in range(layers + 1):
            _resnet(up, width, wide, at, WAN)
            width = wide
        if i < len(mult) - 1:
            at = _grow(up, width, width if residual else width // 2, at, in_time=thick[::-1][i])
    up.weights(width)
    up.layer(width, c.get("out_channels") or 3, at, kernel=CUBE)
    patch, temporal = c.get("patch_size") or 1, 2 ** sum(thick)
    still = c.get("_class_name") == "AutoencoderKLQwenImage"  # one picture, whatever it could do
    return Autoencoder(
        down,
        up,
        spatial=2 ** len(thick) * patch,
        temporal=temporal,
        widest=max(widths[-1] * 2 // patch**2, 1),
        chunk=1 if still else temporal,
        bytes_per_value=2 if still else 4,  # Wan's VAE is kept in float32, as its authors ask
    )


def _resnet(t: Tally, inputs: int, outputs: int, at: Grid, kind: _Kind) -> None:
    t.weights(kind.norm * (inputs + outputs))
    t.layer(inputs, outputs, at, kernel=kind.kernel)
    t.layer(outputs, outputs, at, kernel=kind.kernel)
    if inputs != outputs:
        t.layer(inputs, outputs, at)


def _middle(t: Tally, width: int, at: Grid, kind: _Kind, attention: bool) -> None:
    _resnet(t, width, width, at, kind)
    if attention:
        t.weights(kind.norm * width)
        t.layer(width, width, at, times=4)
        t.attend_within_frames(width, at)
    _resnet(t, width, width, at, kind)


def _shrink(t: Tally, width: int, at: Grid, *, in_time: bool) -> Grid:
    at = at.scaled(0.25)
    t.layer(width, width, at, kernel=SQUARE)
    if in_time:
        at = at.scaled(1.0, 0.5)
        t.layer(width, width, Grid(later=at.later), kernel=3)
    return at


def _grow(t: Tally, width: int, outputs: int, at: Grid, *, in_time: bool) -> Grid:
    if in_time:
        t.layer(width, 2 * width, Grid(later=at.later), kernel=3)
        at = at.scaled(1.0, 2.0)
    at = at.scaled(4.0)
    t.layer(width, outputs, at, kernel=SQUARE)
    return at


def unknown_3d(c: Config) -> Autoencoder:
    """A VAE of a class we do not know, from its widths: convolutions in 3D, as most video VAEs have them."""
    levels = len(c["block_out_channels"])
    time = int(c.get("temporal_compression_ratio") or 1).bit_length() - 1
    steps = [(0.25, 0.5 if i < time else 1.0) for i in range(levels - 1)]
    return _classic(c, HUNYUAN, steps, quant=False)


AUTOENCODERS: dict[str, Callable[[Config], Autoencoder]] = {
    "AutoencoderKL": kl,
    "AutoencoderKLWan": wan,
    "AutoencoderKLQwenImage": wan,
    "AutoencoderKLHunyuanVideo": hunyuan,
    "AutoencoderTiny": tiny,
}
