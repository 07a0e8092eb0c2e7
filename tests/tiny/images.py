"""Image families: FLUX, Stable Diffusion XL and 3, Qwen-Image, Z-Image."""

from collections.abc import Callable
from typing import Any

import torch
from diffusers import (
    AutoencoderKLQwenImage,
    EulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    QwenImagePipeline,
    QwenImageTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
    ZImagePipeline,
    ZImageTransformer2DModel,
)
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration, Qwen3Config, Qwen3Model

from tests.tiny import parts, tokenizers
from tests.tiny.tokenizers import VOCABULARY


def flux() -> FluxPipeline:
    transformer = FluxTransformer2DModel(
        patch_size=1,
        in_channels=64,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=32,
        pooled_projection_dim=32,
        axes_dims_rope=[4, 4, 8],
        guidance_embeds=True,
    ).eval()
    return FluxPipeline(
        scheduler=parts.euler(use_dynamic_shifting=True),
        vae=parts.vae(),
        text_encoder=parts.clip(),
        tokenizer=tokenizers.clip(),
        text_encoder_2=parts.t5(),
        tokenizer_2=tokenizers.t5(),
        transformer=transformer,
    )


def sd3() -> StableDiffusion3Pipeline:
    transformer = SD3Transformer2DModel(
        sample_size=32,
        patch_size=2,
        in_channels=16,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=4,
        caption_projection_dim=32,
        joint_attention_dim=32,
        pooled_projection_dim=64,
        out_channels=16,
    ).eval()
    return StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=parts.euler(),
        vae=parts.vae(),
        text_encoder=parts.clip(projection=True),
        tokenizer=tokenizers.clip(),
        text_encoder_2=parts.clip(projection=True),
        tokenizer_2=tokenizers.clip(),
        text_encoder_3=parts.t5(),
        tokenizer_3=tokenizers.t5(),
    )


def sdxl() -> StableDiffusionXLPipeline:
    unet = UNet2DConditionModel(
        block_out_channels=(8, 16),
        layers_per_block=1,
        sample_size=32,
        in_channels=4,
        out_channels=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=(2, 4),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        transformer_layers_per_block=(1, 2),
        projection_class_embeddings_input_dim=80,
        cross_attention_dim=64,
        norm_num_groups=1,
    ).eval()
    scheduler = EulerDiscreteScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", timestep_spacing="leading", steps_offset=1
    )
    return StableDiffusionXLPipeline(
        vae=parts.vae(channels=4, shift=None),
        text_encoder=parts.clip(),
        tokenizer=tokenizers.clip(),
        text_encoder_2=parts.clip(projection=True),
        tokenizer_2=tokenizers.clip(),
        unet=unet,
        scheduler=scheduler,
    )


def qwenimage() -> QwenImagePipeline:
    layers = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    rope = {"mrope_section": [2, 2, 4], "rope_type": "default", "rope_theta": 1e6}
    text = {
        "num_key_value_heads": 2,
        "rope_parameters": rope,
        "vocab_size": VOCABULARY,
        "max_position_embeddings": 4096,
    }
    vision = {"depth": 2, "hidden_size": 32, "intermediate_size": 32, "num_heads": 2, "out_hidden_size": 32}
    config = Qwen2_5_VLConfig(
        text_config=layers | text,
        vision_config=vision | {"fullatt_block_indexes": [1]},
        vision_start_token_id=3,
        vision_end_token_id=4,
        image_token_id=5,
        video_token_id=6,
        vocab_size=VOCABULARY,
    )
    transformer = QwenImageTransformer2DModel(
        patch_size=2,
        in_channels=64,
        out_channels=16,
        num_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=32,
        guidance_embeds=False,
        axes_dims_rope=(8, 4, 4),
    ).eval()
    autoencoder = AutoencoderKLQwenImage(
        base_dim=8,
        z_dim=16,
        dim_mult=[1, 1, 1, 1],
        num_res_blocks=1,
        temperal_downsample=[False, True, True],
        latents_mean=[0.1] * 16,
        latents_std=[1.5] * 16,
    ).eval()
    return QwenImagePipeline(
        scheduler=parts.euler(use_dynamic_shifting=True, shift_terminal=0.02),
        vae=autoencoder,
        text_encoder=Qwen2_5_VLForConditionalGeneration(config).eval(),
        tokenizer=tokenizers.qwen(max_length=4096),
        transformer=transformer,
    )


def zimage() -> ZImagePipeline:
    text_encoder = Qwen3Model(
        Qwen3Config(
            vocab_size=VOCABULARY,
            hidden_size=16,
            intermediate_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=2,
            head_dim=8,
            max_position_embeddings=1024,
        )
    ).eval()
    transformer = ZImageTransformer2DModel(
        all_patch_size=(2,),
        all_f_patch_size=(1,),
        in_channels=16,
        dim=32,
        n_layers=2,
        n_refiner_layers=1,
        n_heads=2,
        n_kv_heads=2,
        qk_norm=True,
        cap_feat_dim=16,
        rope_theta=256.0,
        t_scale=1000.0,
        axes_dims=[8, 4, 4],
        axes_lens=[1024, 64, 64],
    ).eval()
    for name, parameter in transformer.named_parameters():
        if "pad_token" in name:  # torch.empty: may hold NaN
            torch.nn.init.normal_(parameter.data, std=0.02)
    return ZImagePipeline(
        scheduler=parts.euler(),
        vae=parts.vae(),
        text_encoder=text_encoder,
        tokenizer=tokenizers.qwen(),
        transformer=transformer,
    )


MAKERS: dict[str, Callable[[], Any]] = {
    "flux": flux, "sd3": sd3, "sdxl": sdxl, "qwenimage": qwenimage, "zimage": zimage,
}  # fmt: skip
