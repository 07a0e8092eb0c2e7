"""Parameters and arithmetic of Stable Diffusion's U-Nets, block by block as diffusers builds them."""

from collections.abc import Mapping
from typing import Any

from planner.facts.tally import ONCE, TOKENS, Grid, Tally, fixed, mlp

MAX_BLOCKS = 64


def unet(c: Mapping[str, Any], text: int) -> Tally:
    """``UNet2DConditionModel``; tokens are latent pixels."""
    widths = list(c["block_out_channels"])
    kinds_down, kinds_up = list(c["down_block_types"]), list(c["up_block_types"])
    if len(widths) > MAX_BLOCKS or c["layers_per_block"] > MAX_BLOCKS:
        msg = "a U-Net with that many blocks"
        raise ValueError(msg)
    depths = _per_block(c.get("transformer_layers_per_block", 1), len(widths))
    layers, time, cross = c["layers_per_block"], 4 * widths[0], c["cross_attention_dim"]
    t = Tally()
    _embeddings(t, c, widths[0], time)
    t.layer(c["in_channels"], widths[0], TOKENS, kernel=9)
    at, skips, width = TOKENS, [widths[0]], widths[0]
    for i, kind in enumerate(kinds_down):
        for _ in range(layers):
            _resnet(t, width, widths[i], time, at)
            width = widths[i]
            if "CrossAttn" in kind:
                _transformer(t, width, cross, depths[i], at, text)
            skips.append(width)
        if i < len(widths) - 1:
            at = at.scaled(0.25)
            t.layer(width, width, at, kernel=9)
            skips.append(width)
    _resnet(t, width, width, time, at)
    _transformer(t, width, cross, depths[-1], at, text)
    _resnet(t, width, width, time, at)
    for i, kind in enumerate(kinds_up):
        wide = widths[::-1][i]
        for _ in range(layers + 1):
            _resnet(t, width + skips.pop(), wide, time, at)
            width = wide
            if "CrossAttn" in kind:
                _transformer(t, width, cross, depths[::-1][i], at, text)
        if i < len(widths) - 1:
            at = at.scaled(4.0)
            t.layer(width, width, at, kernel=9)
    t.weights(2 * width)
    t.layer(width, c["out_channels"], TOKENS, kernel=9)
    return t


def _embeddings(t: Tally, c: Mapping[str, Any], width: int, time: int) -> None:
    """Of the timestep, and of SDXL's sizes and pooled prompt."""
    mlp(t, width, time, ONCE, out=time)
    if c.get("addition_embed_type") == "text_time":
        mlp(t, c["projection_class_embeddings_input_dim"], time, ONCE, out=time)


def _resnet(t: Tally, inputs: int, outputs: int, time: int, at: Grid) -> None:
    t.weights(2 * inputs + 2 * outputs)
    t.layer(inputs, outputs, at, kernel=9)
    t.layer(time, outputs, ONCE)
    t.layer(outputs, outputs, at, kernel=9)
    if inputs != outputs:
        t.layer(inputs, outputs, at)


def _transformer(t: Tally, width: int, cross: int, depth: int, at: Grid, text: int) -> None:
    t.weights(2 * width)
    t.layer(width, width, at, times=2)
    block = Tally()
    block.weights(6 * width)
    block.layer(width, width, at, bias=False, times=3)
    block.layer(width, width, at)
    block.attend(width, at, at)
    block.layer(width, width, at, bias=False)
    block.layer(cross, width, fixed(text), bias=False, times=2)
    block.layer(width, width, at)
    block.attend(width, at, fixed(text))
    block.layer(width, 8 * width, at)  # GEGLU: value and gate
    block.layer(4 * width, width, at)
    t.add(block, depth)


def _per_block(value: int | list[int], count: int) -> list[int]:
    return [value] * count if isinstance(value, int) else list(value)
