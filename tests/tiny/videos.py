"""Video families: Wan 2.1 (text and image to video), Wan 2.2 A14B (two experts), HunyuanVideo."""

from collections.abc import Callable
from typing import Any

from diffusers import (
    AutoencoderKLHunyuanVideo,
    AutoencoderKLWan,
    HunyuanVideoPipeline,
    HunyuanVideoTransformer3DModel,
    UniPCMultistepScheduler,
    WanImageToVideoPipeline,
    WanPipeline,
    WanTransformer3DModel,
)
from diffusers.pipelines.hunyuan_video.pipeline_hunyuan_video import DEFAULT_PROMPT_TEMPLATE
from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModel, LlamaConfig, LlamaModel

from tests.tiny import parts, tokenizers


def _wan_transformer(channels: int = 16, image_dim: int | None = None, out_channels: int = 16) -> WanTransformer3DModel:
    return WanTransformer3DModel(
        patch_size=(1, 2, 2),
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=channels,
        out_channels=out_channels,
        text_dim=32,
        freq_dim=256,
        ffn_dim=32,
        num_layers=2,
        cross_attn_norm=True,
        qk_norm="rms_norm_across_heads",
        rope_max_seq_len=64,
        image_dim=image_dim,
        added_kv_proj_dim=None if image_dim is None else 24,
    ).eval()


def _wan_parts(autoencoder: AutoencoderKLWan | None = None) -> dict[str, Any]:
    scheduler = UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0, num_train_timesteps=1000
    )
    if autoencoder is None:
        autoencoder = AutoencoderKLWan(
            base_dim=8, z_dim=16, dim_mult=[1, 1, 1, 1], num_res_blocks=1, temperal_downsample=[False, True, True]
        )
    shared = {"tokenizer": tokenizers.t5(), "text_encoder": parts.umt5(), "scheduler": scheduler}
    return shared | {"vae": autoencoder.eval()}


def wan() -> WanPipeline:
    return WanPipeline(**_wan_parts(), transformer=_wan_transformer())


def wan22() -> WanPipeline:
    return WanPipeline(
        **_wan_parts(), transformer=_wan_transformer(), transformer_2=_wan_transformer(), boundary_ratio=0.875
    )


def wan22_ti2v() -> WanPipeline:
    """The 5B layout: 48 channels, 16× smaller along each edge, a timestep for every token."""
    autoencoder = AutoencoderKLWan(
        base_dim=8,
        decoder_base_dim=8,
        z_dim=48,
        dim_mult=[1, 1, 1, 1],
        num_res_blocks=1,
        temperal_downsample=[False, True, True],
        is_residual=True,
        patch_size=2,
        in_channels=12,
        out_channels=12,
        scale_factor_spatial=16,
        scale_factor_temporal=4,
        latents_mean=[0.1] * 48,
        latents_std=[1.5] * 48,
    )
    transformer = _wan_transformer(channels=48, out_channels=48)
    return WanPipeline(**_wan_parts(autoencoder), transformer=transformer, expand_timesteps=True)


def wan_i2v() -> WanImageToVideoPipeline:
    vision = CLIPVisionModel(
        CLIPVisionConfig(
            hidden_size=32,
            projection_dim=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            image_size=32,
            intermediate_size=37,
            patch_size=8,
        )
    ).eval()
    return WanImageToVideoPipeline(
        **_wan_parts(),
        transformer=_wan_transformer(channels=36, image_dim=32),
        image_encoder=vision,
        image_processor=CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}),
    )


def hunyuan() -> HunyuanVideoPipeline:
    tokenizer = tokenizers.templated(DEFAULT_PROMPT_TEMPLATE["template"], DEFAULT_PROMPT_TEMPLATE["crop_start"])
    text_encoder = LlamaModel(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=16,
            intermediate_size=37,
            num_hidden_layers=4,
            num_attention_heads=4,
            max_position_embeddings=1024,
            pad_token_id=0,
        )
    ).eval()
    transformer = HunyuanVideoTransformer3DModel(
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=10,
        num_layers=1,
        num_single_layers=1,
        num_refiner_layers=1,
        patch_size=1,
        patch_size_t=1,
        guidance_embeds=True,
        text_embed_dim=16,
        pooled_projection_dim=32,
        rope_axes_dim=(2, 4, 4),
    ).eval()
    autoencoder = AutoencoderKLHunyuanVideo(
        in_channels=3,
        out_channels=3,
        latent_channels=4,
        down_block_types=("HunyuanVideoDownBlock3D",) * 4,
        up_block_types=("HunyuanVideoUpBlock3D",) * 4,
        block_out_channels=(8, 8, 8, 8),
        layers_per_block=1,
        act_fn="silu",
        norm_num_groups=4,
        scaling_factor=0.476986,
        spatial_compression_ratio=8,
        temporal_compression_ratio=4,
        mid_block_add_attention=True,
    ).eval()
    return HunyuanVideoPipeline(
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        transformer=transformer,
        vae=autoencoder,
        scheduler=parts.euler(shift=7.0),
        text_encoder_2=parts.clip(),
        tokenizer_2=tokenizers.clip(),
    )


MAKERS: dict[str, Callable[[], Any]] = {
    "wan": wan,
    "wan22": wan22,
    "wan22_ti2v": wan22_ti2v,
    "wan_i2v": wan_i2v,
    "hunyuan": hunyuan,
}
