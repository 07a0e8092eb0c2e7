"""Parameters and arithmetic of text and image encoders, as transformers builds them from their configs."""

from collections.abc import Callable, Mapping
from typing import Any

from planner.facts.tally import NOWHERE, Tally, fixed, gated_mlp, mlp

Config = Mapping[str, Any]
CLIP_TOKENS = 77
_QWEN_VISION = {  # transformers leaves out of a config what is its class's default
    "depth": 32, "hidden_size": 3584, "intermediate_size": 3420, "in_channels": 3, "patch_size": 14,
    "temporal_patch_size": 2, "spatial_merge_size": 2, "out_hidden_size": 3584,
}  # fmt: skip


def clip_text(c: Config, name: str, _tokens: int) -> Tally:
    """``CLIPTextModel``, with a projection or without; prompts are always padded to its length."""
    words = c.get("max_position_embeddings", CLIP_TOKENS)
    h = c["hidden_size"]
    t = Tally()
    t.weights((c["vocab_size"] + words) * h + 2 * h)
    t.add(_clip_block(h, c["intermediate_size"], words), c["num_hidden_layers"])
    if "WithProjection" in name:
        t.layer(h, c["projection_dim"], fixed(1), bias=False)
    return t


def clip_vision(c: Config, name: str, _tokens: int) -> Tally:
    """``CLIPVisionModel``: one picture of the encoder's own size."""
    h, patch = c["hidden_size"], c["patch_size"]
    patches = (c["image_size"] // patch) ** 2
    t = Tally()
    t.layer(c.get("num_channels", 3), h, fixed(patches), bias=False, kernel=patch**2)
    t.weights(h + (patches + 1) * h + 4 * h)
    t.add(_clip_block(h, c["intermediate_size"], patches + 1), c["num_hidden_layers"])
    if "WithProjection" in name:
        t.layer(h, c["projection_dim"], fixed(1), bias=False)
    return t


def t5(c: Config, _name: str, tokens: int) -> Tally:
    """The encoder of T5 or UMT5 (which has position biases in every layer)."""
    at = fixed(tokens)
    d, inner, layers = c["d_model"], c["num_heads"] * c["d_kv"], c["num_layers"]
    gated = bool(c.get("is_gated_act")) or str(c.get("feed_forward_proj", "relu")).startswith("gated-")
    block = Tally()
    block.layer(d, inner, at, bias=False, times=3)
    block.layer(inner, d, at, bias=False)
    block.attend(inner, at, at)
    block.weights(2 * d)
    if gated:
        gated_mlp(block, d, c["d_ff"], at)
    else:
        mlp(block, d, c["d_ff"], at, bias=False)
    block.matrices -= d * c["d_ff"]  # the output of the MLP: transformers keeps it from bitsandbytes
    t = Tally()
    t.add(block, layers)
    biases = layers if c.get("model_type") == "umt5" else 1
    t.weights(c["vocab_size"] * d + d + biases * c.get("relative_attention_num_buckets", 32) * c["num_heads"])
    return t


def decoder(c: Config, name: str, tokens: int) -> Tally:
    """A language model of Llama's build (Qwen, Mistral, Gemma): its last or inner states are the embedding."""
    text: Config = {**c, **(c.get("text_config") or {})}
    at = fixed(tokens)
    h, heads = text["hidden_size"], text["num_attention_heads"]
    kind = str(text.get("model_type", ""))
    head = text.get("head_dim") or h // heads
    keys = (text.get("num_key_value_heads") or heads) * head
    biased = kind.startswith(("qwen2", "qwen2_5")) or bool(text.get("attention_bias"))
    block = Tally()
    block.layer(h, heads * head, at, bias=biased)
    block.layer(h, keys, at, bias=biased, times=2)
    block.layer(heads * head, h, at, bias=bool(text.get("attention_bias")))
    block.attend(heads * head, at, at)
    gated_mlp(block, h, text["intermediate_size"], at)
    block.weights(2 * h + (2 * head if kind.startswith("qwen3") else 0))
    t = Tally()
    t.add(block, text["num_hidden_layers"])
    t.weights(text["vocab_size"] * h + h)
    if name.endswith(("ForCausalLM", "ForConditionalGeneration")) and not c.get("tie_word_embeddings"):
        t.layer(h, text["vocab_size"], at, bias=False)
    if isinstance(c.get("vision_config"), Mapping):
        t.add(_qwen_vision(c["vision_config"]))
    return t


def _clip_block(h: int, hidden: int, tokens: int) -> Tally:
    at = fixed(tokens)
    block = Tally()
    block.layer(h, h, at, times=4)
    block.attend(h, at, at)
    mlp(block, h, hidden, at)
    block.weights(4 * h)
    return block


def _qwen_vision(v: Config) -> Tally:
    """Qwen2.5-VL's eyes: loaded, and idle while a prompt has no picture."""
    v = {**_QWEN_VISION, **v}
    h = v["hidden_size"]
    t = Tally()
    colours = v.get("in_chans", v["in_channels"])
    t.layer(colours, h, NOWHERE, bias=False, kernel=v["temporal_patch_size"] * v["patch_size"] ** 2)
    block = Tally()
    block.layer(h, 3 * h, NOWHERE)
    block.layer(h, h, NOWHERE)
    gated_mlp(block, h, v["intermediate_size"], NOWHERE, bias=True)
    block.weights(2 * h)
    t.add(block, v["depth"])
    merged = h * v["spatial_merge_size"] ** 2
    t.weights(h)
    mlp(t, merged, merged, NOWHERE, out=v["out_hidden_size"])
    return t


ENCODERS: dict[str, Callable[[Config, str, int], Tally]] = {
    "clip_text_model": clip_text,
    "clip_vision_model": clip_vision,
    "t5": t5,
    "umt5": t5,
    "llama": decoder,
    "mistral": decoder,
    "qwen2": decoder,
    "qwen2_5_vl": decoder,
    "qwen3": decoder,
}
