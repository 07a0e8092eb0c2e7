"""Seconds from FLOPs alone, for what nobody has profiled. Wide by nature: say so wherever it is used.

Shares of dense peak reached by common software, from published timings (docs/planning.md): H100 eager .31–.35,
compiled .5; H200 .37–.6; L20 .74–.86; RTX 4090 .71. Wan's VAE reaches .06.
"""

from planner.domain import Gpu, StageCost, StageFacts
from planner.facts.memory import weights_gib
from planner.precision import split_precision

BAND = 0.4
BANDS = {"text": 0.95, "vae": 1.1}  # by kind, as held-out rows were off (docs/planning-figures.md)
SHARES = {"H100": 0.35, "H100-NVL": 0.35, "H100-PCIE": 0.4, "GH200": 0.35, "H200": 0.38, "H20": 0.6, "MI300X": 0.25}
SHARES |= {"B200": 0.3, "B300": 0.3, "A100": 0.5, "A100-80GB": 0.5, "T4": 0.35, "V100": 0.45}
SHARES |= {"L4": 0.45, "L40S": 0.45, "L40": 0.55, "RTX6000-Ada": 0.5}
SHARE = 0.55  # other cards: slow cards are easier to keep busy
TEXT_SHARE = 0.3
VAE_SHARE = 0.06
VAE_PFLOP_PER_MEGAVOXEL = 0.0084  # Wan's decoder: 0.27 PFLOP for 832×480×81
GB_PER_GIB = 1.074
HOST_LINK_GBS = 21.0  # weights streamed from the host, as reached: 41 GB in 1.88 s a pass (Qwen-Image-2512, RTX 4090)
OVERLAP_COST = 0.1  # of the computing, beside the streaming that hides it


def seconds(facts: StageFacts, cost: StageCost, gpu: Gpu) -> float:
    """t = c·megavoxels + passes·max((F_lin/e_lin + F_att/e_att)/peak, weights/bandwidth), in 16-bit arithmetic."""
    peak = gpu.tflops / 1000  # PFLOP/s
    if facts.kind == "vae":
        work = cost.linear_pflop + cost.attention_pflop or cost.megavoxels * VAE_PFLOP_PER_MEGAVOXEL
        return work / (VAE_SHARE * peak) + 0.05
    share = SHARES.get(gpu.name, SHARE) if facts.kind == "transformer" else TEXT_SHARE
    compute = (cost.linear_pflop + cost.attention_pflop) / (share * peak)
    read = facts.weights_gib * GB_PER_GIB / gpu.bandwidth_gbs
    return max(compute, read) * max(cost.passes, 1) + 0.01


def offloaded(resident_s: float, facts: StageFacts, cost: StageCost, precision: str) -> float:
    """Seconds with the weights streamed from the host in every pass, from those with the weights on the GPU.

    While a block computes the next one is copied, so the longer of the two counts. Against the four published rows of
    Qwen-Image-2512 on an RTX 4090 (3.76, 4.07, 4.29 s a step, 1.88 without guidance) it is 4–10 % off.
    """
    if facts.kind == "vae":
        return resident_s
    passes = max(cost.passes, 1)
    each = resident_s / passes
    streamed = weights_gib(facts, split_precision(precision)[0]) * GB_PER_GIB / HOST_LINK_GBS
    return (max(each, streamed) + OVERLAP_COST * each) * passes
