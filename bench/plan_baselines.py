"""Cost of plans against simpler ways to choose GPUs, on the shipped prices. ``python -m bench.plan_baselines``.

One JSON object a line, then the table of docs/planning-figures.md. Every way is solved under the same caps, objective and
queueing rules; only what it may choose from differs. Beside it, how the costs move when the efficiencies do: all GPUs
30 % slower and 30 % faster than thought, and each type by a factor of its own, drawn within ±30 %.
"""

import argparse
import json
import random
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec

from disagctl.planning.gather import gather
from disagctl.spec.load import load_spec
from planner.plan import Infeasible, Plan, PlanRequest, plan

CLOUDS = "[aws, azure, gcp, lambda, nebius, runpod, vast, verda]"
WAN, FLUX, QWEN = "Wan-AI/Wan2.1-T2V-14B", "black-forest-labs/FLUX.1-dev", "Qwen/Qwen-Image"
CLIP, SQUARE, WIDE = ("832x480", 81, 50), ("1024x1024", 1, 28), ("1664x928", 1, 50)
# name → models: (id, requests a minute, (size, frames, steps), p95 seconds)
WORKLOADS: dict[str, tuple[tuple[str, float, tuple[str, int, int], float], ...]] = {
    "Wan2.1-14B 480p, 2/min": ((WAN, 2, CLIP, 1200),),
    "Wan2.1-14B 480p, 12/min": ((WAN, 12, CLIP, 180),),
    "FLUX.1-dev 1024², 60/min": ((FLUX, 60, SQUARE, 30),),
    "Qwen-Image 1664×928, 20/min": ((QWEN, 20, WIDE, 180),),
    "FLUX.1-dev 30/min with Wan2.1-14B 4/min": ((FLUX, 30, SQUARE, 30), (WAN, 4, CLIP, 600)),
}
BASELINES = (
    "one GPU type",
    "cheapest per class (greedy)",
    "one GPU type per stage",
    "whole pipeline, one GPU type",
    "whole pipeline, mixed GPU types",
)
SPREAD = 0.3
DRAWS = 3


def request_of(workload: str) -> PlanRequest:
    """The planner's question for one of the workloads, with the shipped prices, GPUs, timings and configs."""
    entries = "".join(
        f"  - id: {model}\n    name: m{at}\n    dtype: bfloat16\n    slo: {{p95: {p95}s}}\n"
        f"    workload: {{rate: {rate}/min, shapes: [{{size: {size}, frames: {frames}, steps: {steps}}}]}}\n"
        for at, (model, rate, (size, frames, steps), p95) in enumerate(WORKLOADS[workload])
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "service.yaml"
        path.write_text(f"name: baselines\nmodels:\n{entries}infra: {CLOUDS}\n", encoding="utf-8")
        return gather(load_spec(path), path).request


def slowed(request: PlanRequest, factors: dict[str, float]) -> PlanRequest:
    """Every time on a GPU type multiplied by its factor: rows, and what is estimated from its rates."""
    change = msgspec.structs.replace
    gpus = [
        change(
            gpu,
            tflops=gpu.tflops / factors[gpu.name],
            fp8_tflops=gpu.fp8_tflops / factors[gpu.name],
            bandwidth_gbs=gpu.bandwidth_gbs / factors[gpu.name],
        )
        for gpu in request.gpus
    ]
    rows = [change(row, seconds=row.seconds * factors[row.gpu]) for row in request.profiles]
    return change(request, gpus=tuple(gpus), profiles=tuple(rows))


def variants(request: PlanRequest) -> Iterator[tuple[str, PlanRequest]]:
    """The request as it is, with all efficiencies 30 % lower and higher, and with each type's drawn."""
    names = [gpu.name for gpu in request.gpus]
    yield "as known", request
    yield "-30 %", slowed(request, dict.fromkeys(names, 1 / (1 - SPREAD)))
    yield "+30 %", slowed(request, dict.fromkeys(names, 1 / (1 + SPREAD)))
    for seed in range(DRAWS):
        draw = random.Random(seed)
        yield f"drawn {seed}", slowed(request, {name: 1 / draw.uniform(1 - SPREAD, 1 + SPREAD) for name in names})


def costs(answer: Plan | Infeasible) -> dict[str, float | None]:
    """USD an hour of the plan and of each baseline; None where there is none that serves the load."""
    if isinstance(answer, Infeasible):
        return {"plan": None}
    others = {one.name: one.usd_per_hour for one in answer.alternatives}
    return {"plan": answer.usd_per_hour, **{name: others.get(name) for name in BASELINES}}


def markdown(results: dict[str, dict[str, dict[str, float | None]]]) -> Iterator[str]:
    """The two tables: costs as known, and how they move."""
    yield f"| workload | plan, $/h | {' | '.join(BASELINES)} |"
    yield f"|---|---|{'---|' * len(BASELINES)}"
    for workload, by in results.items():
        known = by["as known"]
        yield f"| {workload} | {_usd(known['plan'])} | {' | '.join(_more(known, name) for name in BASELINES)} |"
    yield ""
    yield "| workload | all −30 % | all +30 % | each type drawn: plan | cheapest baseline over it |"
    yield "|---|---|---|---|---|"
    for workload, by in results.items():
        drawn = [found for name, found in by.items() if name.startswith("drawn") and found["plan"] is not None]
        plans = sorted(found["plan"] or 0.0 for found in drawn)
        least = [min((found[n] or float("inf")) for n in BASELINES) / (found["plan"] or 1.0) - 1 for found in drawn]
        yield (
            f"| {workload} | {_usd(by['-30 %']['plan'])} | {_usd(by['+30 %']['plan'])} | "
            f"{_usd(plans[0])} – {_usd(plans[-1])} | +{min(least):.1%} – +{max(least):.1%} |"
            if plans
            else f"| {workload} | {_usd(by['-30 %']['plan'])} | {_usd(by['+30 %']['plan'])} | no plan | – |"
        )


def _usd(value: float | None) -> str:
    return "no plan" if value is None else f"{value:.2f}"


def _more(found: dict[str, float | None], name: str) -> str:
    mine, other = found["plan"], found.get(name)
    return "no plan" if mine is None or other is None else f"{other:.2f} (+{other / mine - 1:.1%})"


def main() -> int:
    """Entry point. 1 when a baseline is cheaper than the plan."""
    parser = argparse.ArgumentParser(prog="python -m bench.plan_baselines", description=__doc__)
    parser.add_argument("--only-known", action="store_true", help="without the sensitivity")
    options = parser.parse_args()
    results: dict[str, dict[str, dict[str, float | None]]] = {}
    worse = 0
    for workload in WORKLOADS:
        results[workload] = {}
        for name, request in variants(request_of(workload)):
            if options.only_known and name != "as known":
                continue
            found = costs(plan(request, 120))
            results[workload][name] = found
            mine = found["plan"]
            cheaper = [n for n in BASELINES if mine is not None and (found[n] or mine) < mine * (1 - 1e-9)]
            worse += len(cheaper)
            print(
                json.dumps({"workload": workload, "efficiencies": name, "usd_per_hour": found, "cheaper": cheaper}),
                flush=True,
            )
    if not options.only_known:
        print("\n".join(markdown(results)))
    return 1 if worse else 0


if __name__ == "__main__":
    sys.exit(main())
