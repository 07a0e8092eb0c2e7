"""Train the shapes model from nothing and save it: first the autoencoder, then text encoders and transformer together.

    python train.py --out model

Interrupt it at will: the same command resumes from `--checkpoints`. Everything is drawn by `data.py`; the sixty
held-out combinations are never drawn here.
"""

import argparse
import os
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from transformers import PreTrainedTokenizerFast

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import data
import networks
from networks import T5_SPECIALS, Networks
from training import LossFunction, Phase

POOL_SIZE = 24_000
VAE_BATCH = 24
VAE_RATE = 2e-3
VAE_MSE_WEIGHT = 2.0
VAE_LATENT_PENALTY = 1e-3
VAE_LATENT_NOISE = 0.1
DIT_BATCH = 64
DIT_RATE = 1.2e-3
# FluxPipeline pads prompts to max_sequence_length and masks nothing. A few steps with longer padding teach the model
# to ignore it, so that a caller who forgets max_sequence_length still gets the picture asked for.
LONG_PROMPT_TOKENS = (24, 64, 512)
LONG_PROMPT_SHARE = 0.1


def vae_loss(nets: Networks, pictures: torch.Tensor) -> LossFunction:
    """The autoencoder's loss: reconstruction through slightly noisy latents of bounded size."""

    def loss(generator: torch.Generator) -> torch.Tensor:
        picked = torch.randint(len(pictures), (VAE_BATCH,), generator=generator)
        x = to_float(pictures[picked])
        latents: torch.Tensor = nets.vae.encoder(x)
        noise = torch.randn(latents.shape, generator=generator)
        y = nets.vae.decoder(latents + VAE_LATENT_NOISE * noise)
        error: torch.Tensor = F.l1_loss(y, x) + VAE_MSE_WEIGHT * F.mse_loss(y, x)
        return error + VAE_LATENT_PENALTY * latents.square().mean()

    return loss


def to_float(pictures: torch.Tensor) -> torch.Tensor:
    """Bytes to the range -1..1, laid out as convolutions like it."""
    return (pictures.float() / 127.5 - 1).contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def encode_pool(nets: Networks, pictures: torch.Tensor) -> torch.Tensor:
    """Every picture as normalised latent tokens; records the normalisation in the autoencoder's configuration."""
    latents = torch.cat([nets.vae.encoder(to_float(chunk)) for chunk in pictures.split(200)])
    shift, scale = float(latents.mean()), float(1 / latents.std())
    nets.vae.register_to_config(shift_factor=shift, scaling_factor=scale)
    difference = nets.vae.decoder(latents[:500]).clamp(-1, 1) - to_float(pictures[:500])
    psnr = -10 * float(difference.div(2).square().mean().log10())
    print(f"latents: shift {shift:.4f}, scale {scale:.4f}; reconstruction {psnr:.1f} dB", flush=True)
    return networks.pack(((latents - shift) * scale).contiguous())


class PromptTable:
    """Tokens of every prompt, padded as FluxPipeline pads them."""

    def __init__(self, nets: Networks, prompts: list[str]) -> None:
        """Tokenise `prompts`, the prompt of each picture of the pool."""
        distinct = sorted(set(prompts))
        place = {prompt: index for index, prompt in enumerate(distinct)}
        self._row = torch.tensor([place[prompt] for prompt in prompts])
        self._clip = self._tokens(nets.clip_tokenizer, distinct)
        self._t5 = self._tokens(nets.t5_tokenizer, distinct)
        self._pad = T5_SPECIALS.index("<pad>")

    @staticmethod
    def _tokens(tokenizer: PreTrainedTokenizerFast, prompts: list[str]) -> torch.Tensor:
        length = networks.PROMPT_TOKENS
        padded = tokenizer(prompts, padding="max_length", max_length=length, truncation=True)
        return torch.tensor(padded["input_ids"])

    def clip(self, picked: torch.Tensor) -> torch.Tensor:
        """CLIP tokens of the picked pictures' prompts."""
        return self._clip[self._row[picked]]

    def t5(self, picked: torch.Tensor, length: int) -> torch.Tensor:
        """T5 tokens of the picked pictures' prompts, padded to `length`."""
        return F.pad(self._t5[self._row[picked]], (0, length - networks.PROMPT_TOKENS), value=self._pad)


def flow_loss(nets: Networks, tokens: torch.Tensor, prompts: PromptTable) -> LossFunction:
    """The flow-matching loss: from a mix of picture and noise, predict noise minus picture.

    Noise levels are uniform, as inference visits them (shift 1), and stratified over the batch.
    """
    ids = networks.image_ids()

    def loss(generator: torch.Generator) -> torch.Tensor:
        length, batch = _prompt_length_and_batch(generator, tokens.shape[1])
        picked = torch.randint(len(tokens), (batch,), generator=generator)
        clean = tokens[picked]
        noise = torch.randn(clean.shape, generator=generator)
        level = 1 - (torch.arange(batch) + torch.rand(batch, generator=generator)) / batch
        mixed = torch.lerp(clean, noise, level[:, None, None])
        predicted = nets.dit(
            hidden_states=mixed,
            encoder_hidden_states=nets.t5(prompts.t5(picked, length))[0],
            pooled_projections=nets.clip(prompts.clip(picked)).pooler_output,
            timestep=level,
            img_ids=ids,
            txt_ids=torch.zeros(length, 3),
            return_dict=False,
        )[0]
        return F.mse_loss(predicted, noise - clean) * (batch / DIT_BATCH)

    return loss


def _prompt_length_and_batch(generator: torch.Generator, image_tokens: int) -> tuple[int, int]:
    """How long this step's prompts are; longer prompts make a smaller batch, so that steps cost the same."""
    draw, which = torch.rand(2, generator=generator).tolist()
    if draw >= LONG_PROMPT_SHARE:
        return networks.PROMPT_TOKENS, DIT_BATCH
    length = LONG_PROMPT_TOKENS[int(which * len(LONG_PROMPT_TOKENS))]
    budget = DIT_BATCH * (image_tokens + networks.PROMPT_TOKENS)
    return length, max(1, budget // (image_tokens + length))


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("model"), help="where to save the repository")
    parser.add_argument("--checkpoints", type=Path, default=Path("checkpoints"), help="where to keep checkpoints")
    parser.add_argument("--vae-steps", type=int, default=5_000)
    parser.add_argument("--dit-steps", type=int, default=17_000)
    parser.add_argument("--minutes", type=float, default=float("inf"), help="stop after this long, to be resumed")
    parser.add_argument("--export-only", action="store_true", help="save what the checkpoints hold, without training")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


def main() -> None:
    """Both phases, then the saved repository."""
    args = parse_arguments()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    stop_at = time.monotonic() + 60 * args.minutes
    args.checkpoints.mkdir(parents=True, exist_ok=True)

    nets = networks.build()
    nets.vae.to(memory_format=torch.channels_last)
    training, held_out = data.split()
    drawn, prompts = data.draw_pool(POOL_SIZE, args.seed, training)
    pictures = torch.from_numpy(drawn).permute(0, 3, 1, 2)
    print(f"{len(pictures)} pictures of {len(training)} combinations, {len(held_out)} held out", flush=True)

    vae = Phase("vae", {"vae": nets.vae}, VAE_RATE, args.seed, args.checkpoints)
    if not args.export_only and not vae.run(args.vae_steps, vae_loss(nets, pictures), stop_at):
        print("stopped early, nothing saved yet: the same command goes on")
        return
    vae.use_average()
    nets.vae.requires_grad_(False)
    tokens = encode_pool(nets, pictures)

    flow = Phase("flow", {"clip": nets.clip, "t5": nets.t5, "dit": nets.dit}, DIT_RATE, args.seed, args.checkpoints)
    loss = flow_loss(nets, tokens, PromptTable(nets, prompts))
    finished = args.export_only or flow.run(args.dit_steps, loss, stop_at)
    flow.use_average()
    size = networks.save_repository(nets, args.out)
    minutes = (vae.seconds + flow.seconds) / 60
    print(f"saved {args.out}, {size / 1e6:.2f} MB: {vae.step} + {flow.step} steps, {minutes:.1f} min of training")
    if not finished:
        print("stopped early: the same command goes on")


if __name__ == "__main__":
    main()
