"""Configs: of tiny repositories on disk, and of the large models from their published config.json files."""

import json
from pathlib import Path
from typing import Any

from planner.facts.flops import work_from_configs
from planner.facts.work import ModelWork

WAN = {
    "patch_size": [1, 2, 2], "num_attention_heads": 40, "attention_head_dim": 128, "in_channels": 16, "out_channels": 16,
    "text_dim": 4096, "freq_dim": 256, "ffn_dim": 13824, "num_layers": 40, "cross_attn_norm": True, "image_dim": None,
}  # fmt: skip
WAN_SMALL = WAN | {"num_attention_heads": 12, "ffn_dim": 8960, "num_layers": 30}
WAN_5B = WAN | {"num_attention_heads": 24, "ffn_dim": 14336, "num_layers": 30, "in_channels": 48, "out_channels": 48}
WAN_VAE = {
    "base_dim": 96, "dim_mult": [1, 2, 4, 4], "num_res_blocks": 2, "temperal_downsample": [False, True, True], "z_dim": 16,
}  # fmt: skip
WAN_5B_VAE = WAN_VAE | {
    "base_dim": 160, "decoder_base_dim": 256, "is_residual": True, "in_channels": 12, "out_channels": 12,
    "patch_size": 2, "z_dim": 48, "temperal_downsample": [False, True, True],
}  # fmt: skip
FLUX = {
    "num_attention_heads": 24, "attention_head_dim": 128, "num_layers": 19, "num_single_layers": 38, "patch_size": 1,
    "pooled_projection_dim": 768, "guidance_embeds": True, "joint_attention_dim": 4096, "in_channels": 64,
}  # fmt: skip
QWEN = {
    "num_attention_heads": 24, "attention_head_dim": 128, "num_layers": 60, "joint_attention_dim": 3584,
    "in_channels": 64, "out_channels": 16, "patch_size": 2,
}  # fmt: skip
SD35 = {
    "num_attention_heads": 38, "attention_head_dim": 64, "num_layers": 38, "joint_attention_dim": 4096, "patch_size": 2,
    "caption_projection_dim": 2432, "pooled_projection_dim": 2048, "in_channels": 16, "out_channels": 16,
    "qk_norm": "rms_norm",
}  # fmt: skip
HUNYUAN = {
    "num_attention_heads": 24, "attention_head_dim": 128, "num_layers": 20, "num_single_layers": 40, "patch_size": 2,
    "num_refiner_layers": 2, "patch_size_t": 1, "mlp_ratio": 4.0, "in_channels": 16, "out_channels": 16,
    "text_embed_dim": 4096, "pooled_projection_dim": 768, "guidance_embeds": True,
}  # fmt: skip
KL = {
    "block_out_channels": [128, 256, 512, 512], "layers_per_block": 2, "latent_channels": 16, "in_channels": 3,
    "out_channels": 3, "use_quant_conv": False,
}  # fmt: skip
HUNYUAN_VAE = KL | {"spatial_compression_ratio": 8, "temporal_compression_ratio": 4}
T5 = {
    "model_type": "t5", "d_model": 4096, "num_heads": 64, "d_kv": 64, "num_layers": 24, "d_ff": 10240,
    "feed_forward_proj": "gated-gelu", "vocab_size": 32128,
}  # fmt: skip
UMT5 = T5 | {"model_type": "umt5", "vocab_size": 256384}

LARGE: dict[str, tuple[str, str, dict[str, Any], str, dict[str, Any], dict[str, Any]]] = {
    "wan-14b": ("WanPipeline", "WanTransformer3DModel", WAN, "AutoencoderKLWan", WAN_VAE, UMT5),
    "wan-1.3b": ("WanPipeline", "WanTransformer3DModel", WAN_SMALL, "AutoencoderKLWan", WAN_VAE, UMT5),
    "wan-5b": ("WanPipeline", "WanTransformer3DModel", WAN_5B, "AutoencoderKLWan", WAN_5B_VAE, UMT5),
    "flux": ("FluxPipeline", "FluxTransformer2DModel", FLUX, "AutoencoderKL", KL, T5),
    "qwen": ("QwenImagePipeline", "QwenImageTransformer2DModel", QWEN, "AutoencoderKLQwenImage", WAN_VAE, T5),
    "sd3.5": ("StableDiffusion3Pipeline", "SD3Transformer2DModel", SD35, "AutoencoderKL", KL, T5),
    "hunyuan": (
        "HunyuanVideoPipeline", "HunyuanVideoTransformer3DModel", HUNYUAN, "AutoencoderKLHunyuanVideo", HUNYUAN_VAE, T5,
    ),
}  # fmt: skip


def large(name: str) -> ModelWork:
    pipeline, transformer, config, vae, vae_config, text = LARGE[name]
    index = {
        "_class_name": pipeline,
        "transformer": ["diffusers", transformer],
        "vae": ["diffusers", vae],
        "text_encoder": ["transformers", "T5EncoderModel"],
    }
    work = work_from_configs(index, {"transformer": config, "vae": vae_config, "text_encoder": text})
    assert isinstance(work, ModelWork)
    return work


def read(folder: Path) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    index = json.loads((folder / "model_index.json").read_text())
    paths = {name: folder / name / "config.json" for name, value in index.items() if isinstance(value, list)}
    return index, {name: json.loads(path.read_text()) for name, path in paths.items() if path.is_file()}
