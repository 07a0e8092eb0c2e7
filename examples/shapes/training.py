"""What both training phases share: optimiser, averaged weights, schedule, checkpoints and progress lines."""

import math
import time
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

WARMUP_STEPS = 200
FINAL_RATE = 0.01  # of the peak rate
EMA_DECAY = 0.999
GRADIENT_NORM = 1.0
CHECKPOINT_EVERY_S = 120.0
REPORT_EVERY = 100

LossFunction = Callable[[torch.Generator], torch.Tensor]


class Phase:
    """Weights in training, with their optimiser, averaged copy and clock.

    Every step draws its randomness from a generator seeded with (seed, step), so that a resumed run takes the same
    steps as an uninterrupted one.
    """

    def __init__(self, name: str, modules: dict[str, nn.Module], rate: float, seed: int, folder: Path) -> None:
        """Train `modules`, from `folder`'s checkpoint on if it has one."""
        self.name = name
        self.seed = seed
        self.rate = rate
        self.path = folder / f"{name}.safetensors"
        self.step = 0
        self.seconds = 0.0
        self.weights = {f"{part}.{key}": p for part, m in modules.items() for key, p in m.named_parameters()}
        self.average = {key: p.detach().clone() for key, p in self.weights.items()}
        self.optimiser = torch.optim.AdamW(
            self.weights.values(), lr=rate, betas=(0.9, 0.98), weight_decay=0.01, fused=True
        )
        if self.path.exists():
            self._load()

    def run(self, steps: int, loss_of: LossFunction, stop_at: float) -> bool:
        """Train up to `steps`; False when the clock `stop_at` (time.monotonic) stopped it first."""
        started = last_saved = time.monotonic()
        before = self.seconds
        shown: float | None = None
        while self.step < steps:
            loss = self._one_step(steps, loss_of)
            shown = loss if shown is None else 0.98 * shown + 0.02 * loss
            now = time.monotonic()
            self.seconds = before + now - started
            if self.step % REPORT_EVERY == 0:
                print(f"{self.name} step {self.step}/{steps} {self.seconds:.0f} s loss {shown:.4f}", flush=True)
            if now - last_saved > CHECKPOINT_EVERY_S or now > stop_at:
                self.save()
                last_saved = now
            if now > stop_at:
                return False
        self.save()
        return True

    def _one_step(self, steps: int, loss_of: LossFunction) -> float:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.step)
        for group in self.optimiser.param_groups:
            group["lr"] = self.rate * schedule(self.step, steps)
        self.optimiser.zero_grad()
        loss = loss_of(generator)
        loss.backward()
        nn.utils.clip_grad_norm_(self.weights.values(), GRADIENT_NORM)
        self.optimiser.step()
        self.step += 1
        decay = min(EMA_DECAY, (self.step + 1) / (self.step + 50))
        average = list(self.average.values())
        torch._foreach_mul_(average, decay)
        torch._foreach_add_(average, [p.detach() for p in self.weights.values()], alpha=1 - decay)
        return float(loss.detach())

    def use_average(self) -> None:
        """Put the averaged weights in the modules: after training, never between steps."""
        with torch.no_grad():
            for key, p in self.weights.items():
                p.copy_(self.average[key])

    def save(self) -> None:
        """Write the checkpoint, whole or not at all."""
        tensors: dict[str, torch.Tensor] = {}
        for key, p in self.weights.items():
            tensors[f"weight/{key}"] = p.detach().contiguous()
            tensors[f"average/{key}"] = self.average[key].contiguous()
            for entry, value in self.optimiser.state.get(p, {}).items():
                tensors[f"{entry}/{key}"] = value.contiguous()
        draft = self.path.with_suffix(".partial")
        save_file(tensors, draft, metadata={"step": str(self.step), "seconds": f"{self.seconds:.1f}"})
        draft.replace(self.path)

    def _load(self) -> None:
        with safe_open(self.path, framework="pt") as file, torch.no_grad():
            metadata = file.metadata()
            keys = set(file.keys())
            for key, p in self.weights.items():
                p.copy_(file.get_tensor(f"weight/{key}"))
                self.average[key].copy_(file.get_tensor(f"average/{key}"))
                for entry in ("step", "exp_avg", "exp_avg_sq"):
                    if f"{entry}/{key}" in keys:
                        self.optimiser.state[p][entry] = _laid_out_as(p, file.get_tensor(f"{entry}/{key}"))
        self.step, self.seconds = int(metadata["step"]), float(metadata["seconds"])
        print(f"{self.name} resumed at step {self.step}, {self.seconds:.0f} s", flush=True)


def _laid_out_as(parameter: nn.Parameter, value: torch.Tensor) -> torch.Tensor:
    """The value in its parameter's memory layout, which the fused optimiser takes for granted; scalars as they are."""
    return torch.empty_like(parameter).copy_(value) if value.shape == parameter.shape else value


def schedule(step: int, steps: int) -> float:
    """The learning rate as a share of its peak: a short warm-up, then a cosine."""
    warm = min(1.0, (step + 1) / WARMUP_STEPS)
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, step / steps)))
    return warm * (FINAL_RATE + (1 - FINAL_RATE) * cosine)
