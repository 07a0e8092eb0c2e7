"""What a diffusers repository's configs say of the work of its stages: parameters, FLOPs, memory, for any shape.

FLOPs count a multiply-accumulate as two. The arithmetic is that of the layers' matrix products and convolutions and of
attention; norms, activations and embeddings are left out (under 2 % of the FLOPs, though not always of the time).
Compared with counting the real modules' FLOPs in tests/flops, and with published figures for the large models.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from planner.domain import ModelFacts, Shape
from planner.facts.autoencoder_tiny import Autoencoder
from planner.facts.autoencoders import AUTOENCODERS, unknown_3d
from planner.facts.denoisers import DENOISERS, generic
from planner.facts.encoders import ENCODERS
from planner.facts.pipelines import EXPERT_STAGES, Pipeline, first_share, pipeline_of
from planner.facts.tally import Tally
from planner.facts.unet import unet
from planner.facts.work import ModelWork, StageWork

Config = Mapping[str, Any]
MAX_PARAMS = 10**13


class Unknown(msgspec.Struct, frozen=True):
    """The configs do not say enough; the reason, to be followed by “profile first”."""

    reason: str


def facts_from_configs(
    model_index: Config,
    configs: Mapping[str, Config],
    shapes: Iterable[Shape] = (),
    model: str = "",
    origin: str = "",
    *,
    split: bool = False,
) -> ModelFacts | Unknown:
    """Facts of a model for ``shapes``, from model_index.json and each component's config.json.

    ``split``: two experts are two stages.
    """
    work = work_from_configs(model_index, configs, split=split)
    return work if isinstance(work, Unknown) else work.facts(model, shapes, origin or f"{work.family}'s configs")


def work_from_configs(
    model_index: Config, configs: Mapping[str, Config], *, split: bool = False
) -> ModelWork | Unknown:
    """The work of a model's stages, for any shape. Unknown names what is missing. ``split``: two experts are two stages."""
    try:
        work = _work(model_index, configs, split=split)
    except KeyError as err:
        return Unknown(f"a component's config lacks {err}")
    except (ArithmeticError, AttributeError, IndexError, TypeError, ValueError) as err:
        return Unknown(f"the configs cannot be made sense of: {err}")
    if isinstance(work, ModelWork) and not all(0 < one.count < MAX_PARAMS for one in work.stages):
        return Unknown("the configs give an impossible number of parameters")
    return work


def _work(index: Config, configs: Mapping[str, Config], *, split: bool) -> ModelWork | Unknown:
    pipe = pipeline_of(str(index.get("_class_name", "")))
    classes = {n: str(v[1]) for n, v in index.items() if isinstance(v, list) and len(v) == 2 and v[0] and n in configs}
    denoisers = [name for name in classes if name.startswith(("transformer", "unet"))]
    if not denoisers or "vae" not in classes:
        return Unknown("the repository has no transformer (or unet) and vae with a config")
    vae = _autoencoder(classes["vae"], configs["vae"])
    if vae is None:
        return Unknown(f"nothing is known of its VAE, a {classes['vae']}")
    around = _surroundings(index, configs)
    tallies = {name: _denoiser(classes[name], {**configs[name], **around}, pipe.text) for name in denoisers}
    missing = next((name for name, tally in tallies.items() if tally is None), None)
    if missing is not None:
        return Unknown(f"nothing is known of its {missing}, a {classes[missing]}")
    encode = _encode(classes, configs, pipe, vae)
    if isinstance(encode, Unknown):
        return encode
    known = {name: tally for name, tally in tallies.items() if tally is not None}
    text_width = int(next((configs[denoisers[0]][key] for key in _TEXT_WIDTHS if configs[denoisers[0]].get(key)), 1024))
    denoise = _denoise(configs[denoisers[0]], known, pipe, vae)
    if split:
        boundary = index.get("boundary_ratio")
        if boundary is None or len(known) != 2:
            return Unknown("it does not have two experts to split")
        parts = _experts(denoise, known, first_share(float(boundary), configs.get("scheduler", {})))
    else:
        parts = (denoise,)
    return ModelWork(
        stages=(encode, *parts, _decode(vae)),
        guided=pipe.guided,
        video=vae.temporal > 1 and pipe.video,
        latent_channels=int(configs["vae"].get("latent_channels") or configs["vae"].get("z_dim") or 16),
        text_bytes=pipe.text * text_width * 2 * (2 if pipe.guided else 1),
        family=pipe.name,
    )


_TEXT_WIDTHS = ("text_dim", "joint_attention_dim", "text_embed_dim", "cap_feat_dim", "cross_attention_dim")


def _surroundings(index: Config, configs: Mapping[str, Config]) -> dict[str, Any]:
    """What a denoiser's work depends on beside its own config."""
    around: dict[str, Any] = {"expand_timesteps": bool(index.get("expand_timesteps"))}
    eyes = configs.get("image_encoder", {})
    if eyes.get("image_size") and eyes.get("patch_size"):
        around["image_tokens"] = (eyes["image_size"] // eyes["patch_size"]) ** 2 + 1
    return around


def _autoencoder(name: str, config: Config) -> Autoencoder | None:
    made = AUTOENCODERS.get(name)
    if made is not None:
        return made({"_class_name": name, **config})
    return unknown_3d(config) if "block_out_channels" in config else None


def _denoiser(name: str, config: Config, text: int) -> Tally | None:
    if name in DENOISERS:
        return DENOISERS[name](config, text)
    if name == "UNet2DConditionModel":
        return unet(config, text)
    wanted = ("num_layers", "num_attention_heads", "attention_head_dim")
    return generic(config, text) if all(isinstance(config.get(key), int) for key in wanted) else None


def _encode(
    classes: Mapping[str, str], configs: Mapping[str, Config], pipe: Pipeline, vae: Autoencoder
) -> StageWork | Unknown:
    total, params = Tally(), []
    matrices, streamed, kept = 0, 0, 0
    for name, kind in classes.items():
        if not name.startswith(("text_encoder", "image_encoder")):
            continue
        read = ENCODERS.get(str(configs[name].get("model_type", "")))
        if read is None:
            return Unknown(f"nothing is known of its {name}, a {kind}")
        one = read(configs[name], kind, pipe.words(configs[name]))
        params.append((name, one.params))
        total.add(one, 2 if pipe.guided and name.startswith("text") else 1)
        if name.startswith("text"):  # one after the other, and nothing else is quantised or offloaded
            matrices, streamed = matrices + one.matrices, max(streamed, one.streamed)
        else:
            kept += one.params
    if pipe.from_image:
        params.append(("vae", vae.encoder.params + vae.decoder.params))
        kept += params[-1][1]
        total.add(vae.encoder)
    made = _stage("encode", "text", total, tuple(params), vae.spatial, vae.temporal)
    return msgspec.structs.replace(made, matrices=matrices, streamed=streamed + kept)


def _denoise(config: Config, tallies: Mapping[str, Tally], pipe: Pipeline, vae: Autoencoder) -> StageWork:
    params = tuple((name, tally.params) for name, tally in tallies.items())
    first = next(iter(tallies.values()))  # of several experts one runs at each step, and they are alike
    edge, frames = pipe.patch(config)
    blocks = config.get("block_out_channels")  # a U-Net's
    width = 4 * blocks[0] if blocks else _width(config)
    hidden = config.get("ffn_dim") or 4 * width
    resident = (0.0, 2.0 * (8 * width + 2 * hidden))
    made = _stage("denoise", "transformer", first, params, vae.spatial * edge, vae.temporal * frames)
    matrices = sum(tally.matrices for tally in tallies.values())
    streamed = max(tally.streamed for tally in tallies.values())
    return msgspec.structs.replace(made, resident=resident, matrices=matrices, streamed=streamed)


def _experts(denoise: StageWork, tallies: Mapping[str, Tally], share: float) -> tuple[StageWork, ...]:
    """A stage for each of two experts: its own weights, its share of the steps."""
    ends = (0.0, share, 1.0)
    made = []
    for at, (stage, (name, tally)) in enumerate(zip(EXPERT_STAGES, tallies.items(), strict=True)):
        own = {"params": ((name, tally.params),), "matrices": tally.matrices, "streamed": tally.streamed}
        made.append(msgspec.structs.replace(denoise, stage=stage, part=(ends[at], ends[at + 1]), **own))
    return tuple(made)


def _width(config: Config) -> int:
    return int(config.get("dim") or config.get("num_attention_heads", 0) * config.get("attention_head_dim", 0))


def _decode(vae: Autoencoder) -> StageWork:
    """All pictures as float32 and as bytes, and some five of the largest tensors for as many frames as are held at once."""
    params = (("vae", vae.encoder.params + vae.decoder.params),)
    pixels = vae.spatial**2
    resident = (5.0 * vae.widest * vae.chunk * vae.bytes_per_value * pixels, 15.0 * pixels * vae.temporal)
    made = _stage("decode", "vae", vae.decoder, params, vae.spatial, vae.temporal)
    tile = (vae.tile // vae.spatial) ** 2
    return msgspec.structs.replace(made, resident=resident, tile=tile, bytes_per_param=float(vae.bytes_per_value))


def _stage(
    stage: str, kind: str, tally: Tally, params: tuple[tuple[str, int], ...], edge: int, frames: int
) -> StageWork:
    """Multiply-accumulates become FLOP here."""
    a, b, c = (2 * value for value in tally.linear)
    d, e, f, g = (2 * value for value in tally.attention)
    return StageWork(stage, kind, params, (a, b, c), (d, e, f, g), edge, frames)
