"""The model's parts, untrained, and how they are saved: a diffusers FLUX repository of about two million parameters."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderTiny, FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel
from tokenizers import Tokenizer, normalizers, pre_tokenizers, processors
from tokenizers.models import WordLevel
from transformers import CLIPTextConfig, CLIPTextModel, PreTrainedTokenizerFast, T5Config, T5EncoderModel

from data import SIDE, WORDS

PROMPT_TOKENS = 12
INFERENCE_STEPS = 20
VAE_SCALE = 4
LATENT_CHANNELS = 8
VAE_WIDTH = 32
HEADS = 4
HEAD_DIM = 32
ROPE_AXES = (8, 12, 12)
T5_WIDTH = 96
CLIP_WIDTH = 64

CLIP_SPECIALS = ("<s>", "</s>", "<unk>", "<pad>")
T5_SPECIALS = ("<pad>", "</s>", "<unk>")

# What a caller must pass because FluxPipeline's own defaults (1024 pixels, 512 prompt tokens) are for a larger model.
CALL_DEFAULTS = {
    "max_sequence_length": PROMPT_TOKENS,
    "num_inference_steps": INFERENCE_STEPS,
    "height": SIDE,
    "width": SIDE,
}


@dataclass
class Networks:
    """Everything with weights, and the tokenizers."""

    vae: Any  # AutoencoderTiny; like all of diffusers, it has no types that mypy could see
    clip: CLIPTextModel
    t5: T5EncoderModel
    dit: Any  # FluxTransformer2DModel
    clip_tokenizer: PreTrainedTokenizerFast
    t5_tokenizer: PreTrainedTokenizerFast


def _tokenizer(specials: tuple[str, ...], template: str, **names: str) -> PreTrainedTokenizerFast:
    """A tokenizer that knows whole words only."""
    vocabulary = {word: index for index, word in enumerate((*specials, *WORDS))}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    used = [(token, vocabulary[token]) for token in template.split() if token in vocabulary]
    tokenizer.post_processor = processors.TemplateProcessing(single=template, special_tokens=used)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=PROMPT_TOKENS, unk_token="<unk>", pad_token="<pad>", **names
    )


def build() -> Networks:
    """Untrained networks (their weights come from torch's global seed)."""
    clip_config = CLIPTextConfig(
        vocab_size=len(CLIP_SPECIALS) + len(WORDS),
        hidden_size=CLIP_WIDTH,
        intermediate_size=2 * CLIP_WIDTH,
        projection_dim=CLIP_WIDTH,
        num_hidden_layers=1,
        num_attention_heads=4,
        max_position_embeddings=PROMPT_TOKENS,
        bos_token_id=CLIP_SPECIALS.index("<s>"),
        eos_token_id=CLIP_SPECIALS.index("</s>"),
        pad_token_id=CLIP_SPECIALS.index("<pad>"),
    )
    t5_config = T5Config(
        vocab_size=len(T5_SPECIALS) + len(WORDS),
        d_model=T5_WIDTH,
        d_kv=24,
        d_ff=2 * T5_WIDTH,
        num_layers=2,
        num_heads=4,
        dropout_rate=0.0,
    )
    width = (VAE_WIDTH,) * 3
    return Networks(
        vae=AutoencoderTiny(
            encoder_block_out_channels=width,
            decoder_block_out_channels=width,
            num_encoder_blocks=(1, 1, 1),
            num_decoder_blocks=(1, 1, 1),
            latent_channels=LATENT_CHANNELS,
        ),
        clip=CLIPTextModel(clip_config),
        t5=T5EncoderModel(t5_config),
        dit=FluxTransformer2DModel(
            patch_size=1,
            in_channels=4 * LATENT_CHANNELS,
            num_layers=1,
            num_single_layers=3,
            attention_head_dim=HEAD_DIM,
            num_attention_heads=HEADS,
            joint_attention_dim=T5_WIDTH,
            pooled_projection_dim=CLIP_WIDTH,
            axes_dims_rope=ROPE_AXES,
            guidance_embeds=False,
        ),
        clip_tokenizer=_tokenizer(CLIP_SPECIALS, "<s> $A </s>", bos_token="<s>", eos_token="</s>"),
        t5_tokenizer=_tokenizer(T5_SPECIALS, "$A </s>", eos_token="</s>"),
    )


def pack(latents: torch.Tensor) -> torch.Tensor:
    """(batch, channels, height, width) latents as the tokens FluxPipeline makes of them: 2 by 2 patches."""
    batch, channels, height, width = latents.shape
    patches = latents.view(batch, channels, height // 2, 2, width // 2, 2).permute(0, 2, 4, 1, 3, 5)
    return patches.reshape(batch, (height // 2) * (width // 2), channels * 4)


def image_ids() -> torch.Tensor:
    """The position of every image token, as FluxPipeline numbers them."""
    grid = SIDE // VAE_SCALE // 2
    ids = torch.zeros(grid, grid, 3)
    ids[..., 1] = torch.arange(grid)[:, None]
    ids[..., 2] = torch.arange(grid)[None, :]
    return ids.view(-1, 3)


def save_repository(nets: Networks, folder: Path) -> int:
    """Save as a half-precision diffusers repository; returns its size in bytes. Turns `nets` to half precision."""
    pipeline: Any = FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=1.0, use_dynamic_shifting=False),
        vae=nets.vae.eval(),
        text_encoder=nets.clip.eval(),
        tokenizer=nets.clip_tokenizer,
        text_encoder_2=nets.t5.eval(),
        tokenizer_2=nets.t5_tokenizer,
        transformer=nets.dit.eval(),
    )
    pipeline.to(torch.float16)
    pipeline.save_pretrained(folder, safe_serialization=True)
    (folder / "disagctl.json").write_text(json.dumps({"defaults": CALL_DEFAULTS}, indent=2) + "\n")
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
