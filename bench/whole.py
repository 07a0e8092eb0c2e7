"""Stages apart or the whole pipeline on each worker? ``python -m bench.whole [--seconds N]``

Both behind the same gateway with the same number of workers. Times are those of Wan-like requests (encode 1 : denoise 24 :
decode 3) on a small scale. *fits*: every worker holds all weights. *tight*: a GPU holds the weights of one stage at a time, so
a whole pipeline reloads what it needs for every request, as offloading does; a worker of one stage loads once. Beside each
figure stands what the planner advises for the same times and memory.
"""

import argparse
import asyncio
from typing import Final

from bench.figures import Figure, rounded
from bench.hotpath import submitter
from bench.load import drive
from bench.service import running
from disagctl.settings import use_fast_loop
from planner.domain import Gpu, Offer, Profile, RequestClass, Shape, Workload
from planner.plan import Infeasible, PlanRequest, plan

SECONDS: Final = {"encode": 0.02, "denoise": 0.48, "decode": 0.06}
WEIGHTS_GIB: Final = {"encode": 10.6, "denoise": 26.6, "decode": 0.5}  # a text encoder, 14 B parameters in bf16, a VAE
ACTIVATIONS_GIB: Final = 6.0
LOAD_S_PER_GIB: Final = 0.01  # on the scale of the times above
REPLICAS: Final = {"encode": 1, "denoise": 6, "decode": 1}
WORKERS: Final = sum(REPLICAS.values())
SCALE: Final = 100.0  # the planner is asked about seconds of real size
GPUS_GIB: Final = {"fits": 80.0, "tight": 40.0}
USD_PER_H: Final = 2.0
OUT_BYTES: Final = 8 << 20
IN_FLIGHT: Final = 32
STAGES: Final = tuple(SECONDS)

SPEC: Final = """
name: bench
model: {{id: synthetic, stages: {{{stages}}}}}
workload: {{rate: 10/s, shapes: [{{size: 64x64}}]}}
infra: local
pipeline: {{encoder_cache: false}}
stages: {{{replicas}}}
"""


def whole_s(memory: str) -> float:
    """Seconds of a request on a worker that does everything."""
    busy = sum(SECONDS.values())
    return busy if memory == "fits" else busy + sum(WEIGHTS_GIB.values()) * LOAD_S_PER_GIB


def apart_spec() -> str:
    """A worker does one stage, and loads it once."""
    stages = [
        f"{name}: {{seconds: {s}, load_s: {WEIGHTS_GIB[name] * LOAD_S_PER_GIB}"
        + (f", out_bytes: {OUT_BYTES}}}" if name != STAGES[-1] else "}")
        for name, s in SECONDS.items()
    ]
    return SPEC.format(
        stages=", ".join(stages), replicas=", ".join(f"{name}: {{replicas: {n}}}" for name, n in REPLICAS.items())
    )


def whole_spec(memory: str) -> str:
    """A worker does everything."""
    load_s = sum(WEIGHTS_GIB.values()) * LOAD_S_PER_GIB
    stage = f"pipeline: {{seconds: {whole_s(memory)}, load_s: {load_s}}}"
    return SPEC.format(stages=stage, replicas=f"pipeline: {{replicas: {WORKERS}}}")


def advice(memory: str, per_s: float) -> str:
    """What the planner would rent for this rate, in words: its rows."""
    shape = Shape(832, 480, 81, 50)
    size = GPUS_GIB[memory]
    rows = tuple(
        Profile("m", stage, "GPU", shape, s * SCALE, WEIGHTS_GIB[stage] + ACTIVATIONS_GIB, "measured",
                weights_gib=WEIGHTS_GIB[stage], load_s=WEIGHTS_GIB[stage] * LOAD_S_PER_GIB * SCALE)
        for stage, s in SECONDS.items()
    )  # fmt: skip
    found = plan(
        PlanRequest(
            Workload((RequestClass("m", shape, per_s / SCALE),)),
            (Offer("own", "here", "one", "GPU", 1, False, USD_PER_H),),
            (Gpu("GPU", size, size - 1.0, 2000.0, 400.0),),
            profiles=rows,
        ),
        alternatives=False,
    )
    if isinstance(found, Infeasible):
        return "nothing"
    return ", ".join(f"{row.replicas} × {row.stage}" for row in found.rows)


async def per_s(spec: str, seconds: float) -> float:
    """Requests a second, once the pipeline is full."""
    async with running(spec) as head:
        one = submitter(head)
        await drive(one, IN_FLIGHT, min(4.0, seconds))
        return (await drive(one, IN_FLIGHT, seconds)).per_s


async def run(seconds: float) -> list[Figure]:
    """Both figures, and what they are made of."""
    apart = await per_s(apart_spec(), seconds)
    figures = [Figure("disaggregated_per_s", rounded(apart), "requests/s", None, "higher")]
    for memory in ("fits", "tight"):
        whole = await per_s(whole_spec(memory), seconds)
        wanted = advice(memory, 0.9 * min(n / SECONDS[stage] for stage, n in REPLICAS.items()))
        peer = (
            f"whole pipeline on each of {WORKERS} workers; the planner, for nine tenths of the stages' rate: {wanted}"
        )
        name = f"disaggregated_vs_whole_{memory}"
        figures.append(Figure(name, rounded(apart / whole), "x", None, "higher", peer, rounded(whole)))
    return figures


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m bench.whole", description=__doc__)
    parser.add_argument("--seconds", type=float, default=15.0, help="duration of each of the three runs")
    args = parser.parse_args()
    use_fast_loop()
    for figure in asyncio.run(run(args.seconds)):
        print(figure.line(), flush=True)


if __name__ == "__main__":
    main()
