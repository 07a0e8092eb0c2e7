"""Seconds from FLOPs alone, for what nobody has profiled. Wide by nature: say so wherever it is used.

Shares of dense peak reached by common software, from published timings (docs/planning.md): H100 eager .31–.35,
compiled .5; H200 .37–.6; L20 .74–.86; RTX 4090 .71. Wan's VAE reaches .06.
"""

from planner.domain import Gpu, StageCost, StageFacts
from planner.facts.memory import split_precision

BAND = 0.4
SHARES = {"H100": 0.35, "H100-NVL": 0.35, "H100-PCIE": 0.4, "GH200": 0.35, "H200": 0.38, "H20": 0.6, "MI300X": 0.25}
SHARES |= {"B200": 0.3, "B300": 0.3, "A100": 0.5, "A100-80GB": 0.5, "T4": 0.35, "V100": 0.45}
SHARES |= {"L4": 0.45, "L40S": 0.45, "L40": 0.55, "RTX6000-Ada": 0.5}
SHARE = 0.55  # other cards: slow cards are easier to keep busy
TEXT_SHARE = 0.3
VAE_SHARE = 0.06
VAE_PFLOP_PER_MEGAVOXEL = 0.0084  # Wan's decoder: 0.27 PFLOP for 832×480×81
HOST_LINK_GBS = 20.0  # PCIe 4 ×16, as reached
QUANT_SPEED = {"fp8": 1.35, "int8": 1.15, "nf4": 0.85}  # over bf16, transformers


def seconds(facts: StageFacts, cost: StageCost, gpu: Gpu, precision: str) -> float:
    """t = c·megavoxels + passes·max((F_lin/e_lin + F_att/e_att)/peak, weights/bandwidth)."""
    peak = gpu.tflops / 1000  # PFLOP/s
    base, offload = split_precision(precision)
    if facts.kind == "vae":
        work = cost.linear_pflop + cost.attention_pflop or cost.megavoxels * VAE_PFLOP_PER_MEGAVOXEL
        return work / (VAE_SHARE * peak) + 0.05
    share = SHARES.get(gpu.name, SHARE) if facts.kind == "transformer" else TEXT_SHARE
    speed = QUANT_SPEED.get(base, 1.0) if facts.kind == "transformer" else 1.0
    compute = (cost.linear_pflop / speed + cost.attention_pflop) / (share * peak)
    read = facts.weights_gib * 1.074 / gpu.bandwidth_gbs
    each = max(compute, read)
    if offload:
        each = max(each, facts.weights_gib * 1.074 / HOST_LINK_GBS) + 0.2 * each
    return each * max(cost.passes, 1) + 0.01
