"""Text encoders, VAEs and schedulers that several families share."""

from typing import Any

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    T5Config,
    T5EncoderModel,
    UMT5Config,
    UMT5EncoderModel,
)

from tests.tiny.tokenizers import VOCABULARY

_T5 = {"vocab_size": VOCABULARY, "d_model": 32, "d_kv": 8, "d_ff": 37, "num_layers": 2, "num_heads": 4}


def t5() -> T5EncoderModel:
    return T5EncoderModel(T5Config(**_T5)).eval()


def umt5() -> UMT5EncoderModel:
    return UMT5EncoderModel(UMT5Config(**_T5)).eval()


def clip(*, projection: bool = False) -> CLIPTextModel | CLIPTextModelWithProjection:
    config = CLIPTextConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=37,
        num_hidden_layers=2,
        num_attention_heads=4,
        projection_dim=32,
        max_position_embeddings=77,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
        hidden_act="gelu",
    )
    return (CLIPTextModelWithProjection if projection else CLIPTextModel)(config).eval()


def vae(channels: int = 16, shift: float | None = 0.1) -> AutoencoderKL:
    """8× smaller along each edge, like the real ones."""
    return AutoencoderKL(
        sample_size=32,
        in_channels=3,
        out_channels=3,
        block_out_channels=(8, 8, 8, 8),
        layers_per_block=1,
        latent_channels=channels,
        norm_num_groups=4,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        use_quant_conv=False,
        use_post_quant_conv=False,
        shift_factor=shift,
        scaling_factor=1.5,
    ).eval()


def euler(**config: Any) -> FlowMatchEulerDiscreteScheduler:
    return FlowMatchEulerDiscreteScheduler(**config)


def fill_zeros(pipeline: Any) -> None:
    """Give denoisers' zero-initialised layers noise: with them the picture would not depend on the prompt."""
    for name, module in pipeline.components.items():
        if isinstance(module, torch.nn.Module) and ("transformer" in name or name == "unet"):
            for parameter in module.parameters():
                if not parameter.any():
                    torch.nn.init.normal_(parameter.data, std=0.05)
