"""Parameters and arithmetic of the denoisers, layer by layer as diffusers (0.39) builds them from their configs.

Each function takes a transformer's ``config.json`` and the number of text tokens its pipeline hands it. Widths are in
channels, grids in tokens of the latent after patching.
"""

from collections.abc import Callable, Mapping
from math import prod
from typing import Any

from planner.facts.blocks import TIME_CHANNELS, final, one_stream, pooled_time, two_streams
from planner.facts.tally import ONCE, TOKENS, Grid, Tally, fixed, gated_mlp, mlp

Config = Mapping[str, Any]
WAN_IMAGE_TOKENS = 257  # of CLIP's ViT-H/14 on 224×224, with its class token
ZIMAGE_TIME = (1024, 256)  # hidden and output width of Z-Image's timestep embedding
ZIMAGE_PAD = 32  # Z-Image pads text and picture to multiples of this


def wan(c: Config, text: int) -> Tally:
    """``WanTransformer3DModel``: self-attention, cross-attention to the text (and the input picture), MLP.

    Beside the config's own keys: ``image_tokens`` of the picture, ``expand_timesteps`` where every token has its own.
    """
    t = Tally()
    d, ffn, layers = c["num_attention_heads"] * c["attention_head_dim"], c["ffn_dim"], c["num_layers"]
    patch = prod(c["patch_size"])
    t.layer(c["in_channels"], d, TOKENS, kernel=patch)
    times = TOKENS if c.get("expand_timesteps") else ONCE
    mlp(t, c["freq_dim"], d, times, out=d)
    t.layer(d, 6 * d, times)
    mlp(t, c["text_dim"], d, fixed(text), out=d)
    image = fixed(c.get("image_tokens", WAN_IMAGE_TOKENS)) if c.get("image_dim") else None
    if image is not None:
        width = c["image_dim"]
        mlp(t, width, width, image, out=d)
        t.weights(2 * width + 2 * d + (c.get("pos_embed_seq_len") or 0) * width)
    block = Tally()
    block.layer(d, d, TOKENS, times=4 + 2)  # q, k, v, o of the first attention; q, o of the second
    block.layer(d, d, fixed(text), times=2)
    block.attend(d, TOKENS, TOKENS)
    block.attend(d, TOKENS, fixed(text))
    if image is not None:
        block.layer(c["added_kv_proj_dim"], d, image, times=2)
        block.attend(d, TOKENS, image)
        block.weights(d)
    mlp(block, d, ffn, TOKENS)
    block.weights(4 * d + 6 * d + (2 * d if c.get("cross_attn_norm") else 0))
    t.add(block, layers)
    t.layer(d, c["out_channels"] * patch, TOKENS)
    t.weights(2 * d)
    return t


def flux(c: Config, text: int) -> Tally:
    """``FluxTransformer2DModel``: joint attention, first with two streams, then with one."""
    t = Tally()
    head = c["attention_head_dim"]
    d = c["num_attention_heads"] * head
    both = TOKENS + fixed(text)
    pooled_time(t, d, c["pooled_projection_dim"], times=2 if c.get("guidance_embeds") else 1)
    t.layer(c["joint_attention_dim"], d, fixed(text))
    t.layer(c["in_channels"], d, TOKENS)
    t.add(two_streams(d, text, norms=4 * head), c["num_layers"])
    t.add(one_stream(d, both, norms=2 * head), c["num_single_layers"])
    final(t, d, c["patch_size"] ** 2 * (c.get("out_channels") or c["in_channels"]))
    return t


def qwen_image(c: Config, text: int) -> Tally:
    """``QwenImageTransformer2DModel``."""
    t = Tally()
    head = c["attention_head_dim"]
    d = c["num_attention_heads"] * head
    mlp(t, TIME_CHANNELS, d, ONCE, out=d)
    t.weights(c["joint_attention_dim"] + (2 * d if c.get("use_additional_t_cond") else 0))
    t.layer(c["in_channels"], d, TOKENS)
    t.layer(c["joint_attention_dim"], d, fixed(text))
    t.add(two_streams(d, text, norms=4 * head), c["num_layers"])
    final(t, d, c["patch_size"] ** 2 * (c.get("out_channels") or c["in_channels"]))
    return t


def sd3(c: Config, text: int) -> Tally:
    """``SD3Transformer2DModel`` (3 and 3.5; the ``dual_attention_layers`` of 3.5 medium attend once more)."""
    t = Tally()
    head = c["attention_head_dim"]
    d = c["num_attention_heads"] * head
    dual = len(c.get("dual_attention_layers") or ())
    norms = 4 * head if c.get("qk_norm") else 0
    t.layer(c["in_channels"], d, TOKENS, kernel=c["patch_size"] ** 2)
    pooled_time(t, d, c["pooled_projection_dim"])
    t.layer(c["joint_attention_dim"], c["caption_projection_dim"], fixed(text))
    t.add(two_streams(d, text, norms=norms), c["num_layers"])
    extra = Tally()
    extra.layer(d, d, TOKENS, times=4)
    extra.layer(d, 3 * d, ONCE)
    extra.attend(d, TOKENS, TOKENS)
    extra.weights(norms // 2)
    t.add(extra, dual)
    # The last block's text stream ends after attention: a scale and shift in place of six, no output layer, no MLP.
    missing = Tally()
    missing.layer(d, 4 * d, ONCE)
    missing.layer(d, d, fixed(text))
    mlp(missing, d, 4 * d, fixed(text))
    t.add(missing, -1)
    final(t, d, c["patch_size"] ** 2 * (c.get("out_channels") or c["in_channels"]))
    return t


def zimage(c: Config, text: int) -> Tally:
    """``ZImageTransformer2DModel``: refiners of text and picture, then joint layers; all with gated MLPs."""
    t = Tally()
    d, heads = c["dim"], c["n_heads"]
    words = -(-text // ZIMAGE_PAD) * ZIMAGE_PAD
    hidden, narrow = ZIMAGE_TIME
    narrow = min(d, narrow)
    mlp(t, TIME_CHANNELS, hidden, ONCE, out=narrow)
    t.layer(c["cap_feat_dim"], d, fixed(words))
    t.weights(c["cap_feat_dim"] + 2 * d)
    for size, frames in zip(c["all_patch_size"], c["all_f_patch_size"], strict=True):
        cells = size * size * frames * c["in_channels"]
        t.layer(cells, d, TOKENS)
        t.layer(d, cells, TOKENS)
        t.layer(narrow, d, ONCE)

    def block(at: Grid, *, modulated: bool) -> Tally:
        b = Tally()
        kv = d // heads * c["n_kv_heads"]
        b.layer(d, d, at, bias=False, times=2)
        b.layer(d, kv, at, bias=False, times=2)
        b.attend(d, at, at)
        gated_mlp(b, d, int(d / 3 * 8), at)
        b.weights(4 * d + (2 * (d // heads) if c.get("qk_norm") else 0))
        if modulated:
            b.layer(narrow, 4 * d, ONCE)
        return b

    t.add(block(TOKENS, modulated=True), c["n_refiner_layers"])
    t.add(block(fixed(words), modulated=False), c["n_refiner_layers"])
    t.add(block(TOKENS + fixed(words), modulated=True), c["n_layers"])
    return t


def hunyuan_video(c: Config, text: int) -> Tally:
    """``HunyuanVideoTransformer3DModel``: FLUX's blocks after a refiner of the text."""
    t = Tally()
    head, ratio = c["attention_head_dim"], c.get("mlp_ratio", 4.0)
    d = c["num_attention_heads"] * head
    patch = c["patch_size"] ** 2 * c["patch_size_t"]
    words = fixed(text)
    t.layer(c["in_channels"], d, TOKENS, kernel=patch)
    pooled_time(t, d, c["pooled_projection_dim"], times=2 if c.get("guidance_embeds") else 1)
    pooled_time(t, d, c["text_embed_dim"])
    t.layer(c["text_embed_dim"], d, words)
    refiner = Tally()
    refiner.layer(d, d, words, times=4)
    refiner.attend(d, words, words)
    mlp(refiner, d, int(d * ratio), words)
    refiner.layer(d, 2 * d, ONCE)
    refiner.weights(4 * d)
    t.add(refiner, c["num_refiner_layers"])
    t.add(two_streams(d, text, norms=4 * head, ratio=ratio), c["num_layers"])
    t.add(one_stream(d, TOKENS + words, norms=2 * head, ratio=ratio), c["num_single_layers"])
    final(t, d, patch * (c.get("out_channels") or c["in_channels"]))
    return t


def generic(c: Config, text: int) -> Tally:
    """A transformer of a class we do not know: self-attention, cross-attention, an MLP of ``ffn_dim`` or 4 widths.

    Leaves out modulation and what surrounds the blocks, which differ: parameters are good to some twenty per cent.
    """
    d = c["num_attention_heads"] * c["attention_head_dim"]
    layers = c["num_layers"] + (c.get("num_single_layers") or 0)
    block = Tally()
    block.layer(d, d, TOKENS, times=6)
    block.layer(d, d, fixed(text), times=2)
    block.attend(d, TOKENS, TOKENS)
    block.attend(d, TOKENS, fixed(text))
    mlp(block, d, c.get("ffn_dim") or 4 * d, TOKENS)
    t = Tally()
    t.add(block, layers)
    return t


DENOISERS: dict[str, Callable[[Config, int], Tally]] = {
    "WanTransformer3DModel": wan,
    "FluxTransformer2DModel": flux,
    "QwenImageTransformer2DModel": qwen_image,
    "SD3Transformer2DModel": sd3,
    "ZImageTransformer2DModel": zimage,
    "HunyuanVideoTransformer3DModel": hunyuan_video,
}
