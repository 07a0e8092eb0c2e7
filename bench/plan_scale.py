"""Seconds and memory of planning at scale: 50/500/5,000 SKUs × 50 classes. ``python -m bench.plan_scale``.

One JSON object a line. Prices are drawn with a seed from typical ones and service times are assumed: the figures are
about the solver, not about money.
"""

import argparse
import json
import random
import resource
import time

from planner.domain import Gpu, Offer, Profile, RequestClass, Shape, Workload
from planner.plan import Plan, PlanRequest, plan

CARDS = {  # memory GiB, dense bf16 TFLOP/s, typical USD an hour
    "T4": (16, 65, 0.45),
    "A10G": (24, 70, 1.2),
    "L4": (24, 121, 0.7),
    "A10": (24, 125, 1.0),
    "RTX3090": (24, 71, 0.3),
    "RTX4090": (24, 165, 0.5),
    "RTX5090": (32, 210, 0.7),
    "A40": (48, 150, 0.5),
    "A6000": (48, 155, 0.7),
    "L40": (48, 181, 0.9),
    "L40S": (48, 362, 1.3),
    "RTX6000-Ada": (48, 364, 0.9),
    "RTX-PRO-6000": (96, 504, 1.7),
    "A100": (40, 312, 1.6),
    "A100-80GB": (80, 312, 1.9),
    "H100-PCIE": (80, 756, 2.6),
    "H100-NVL": (94, 835, 2.8),
    "H100": (80, 989, 3.2),
    "H20": (96, 148, 1.5),
    "GH200": (96, 989, 2.4),
    "H200": (141, 989, 3.6),
    "B200": (180, 2250, 5.6),
    "B300": (270, 2250, 7.0),
}
MODELS = {  # stage → (weights GiB, activations GiB, seconds × TFLOP/s at the smallest shape and one step)
    "wan": {"encode": (11.0, 1.0, 20.0), "denoise": (28.0, 8.0, 900.0), "decode": (1.0, 9.0, 1200.0)},
    "flux": {"encode": (9.5, 1.0, 18.0), "denoise": (24.0, 3.0, 60.0), "decode": (0.5, 4.0, 30.0)},
}


def instance(skus: int, classes: int, seed: int = 1) -> PlanRequest:
    draw = random.Random(seed)
    gpus = tuple(Gpu(name, memory, 0.98 * memory, 1000, tflops) for name, (memory, tflops, _) in CARDS.items())
    share = {name: draw.uniform(0.3, 0.65) for name in CARDS}
    offers = []
    for n in range(skus):
        name = list(CARDS)[n % len(CARDS)] if n < len(CARDS) else draw.choice(list(CARDS))
        count = draw.choice((1, 1, 1, 2, 4, 8))
        price = CARDS[name][2] * count * draw.uniform(0.8, 2.2)
        for spot in (False, True):
            usd = round(price * (draw.uniform(0.3, 0.7) if spot else 1), 4)
            offers.append(
                Offer(f"cloud{draw.randrange(8)}", f"r{n % 12}", f"i{n}", name, count, spot, usd, draw.randint(2, 32))
            )
    shapes, profiles = [], []
    items = []
    for n in range(classes):
        model = "wan" if n % 2 else "flux"
        width = (512, 640, 768, 832, 1024, 1280)[n // 2 % 6]
        shape = Shape(width, width // 2 // 16 * 16, 81 if model == "wan" else 1, (4, 8, 20, 28, 50)[n // 12 % 5])
        items.append((model, shape))
    for model, shape in dict.fromkeys(items):
        scale = shape.width * shape.height / (512 * 256)
        slowest = 0.0
        for stage, (weights, active, work) in MODELS[model].items():
            amount = work * (scale**1.3 * shape.steps if stage == "denoise" else scale if stage == "decode" else 1)
            slowest += amount / 989 / 0.45
            for name, (_, tflops, _) in CARDS.items():
                seconds = amount / tflops / share[name]
                profiles.append(
                    Profile(
                        model,
                        stage,
                        name,
                        shape,
                        seconds,
                        weights + active * scale**0.5,
                        "estimated",
                        weights_gib=weights,
                    )
                )
        shapes.append(RequestClass(model, shape, draw.uniform(0.01, 0.1), 20 + 5 * slowest))
    return PlanRequest(Workload(tuple(shapes)), tuple(offers), gpus, profiles=tuple(profiles))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--skus", type=int, nargs="*", default=[50, 500, 5000])
    parser.add_argument("--classes", type=int, default=50)
    parser.add_argument("--alternatives", action="store_true")
    options = parser.parse_args()
    import msgspec

    for skus in options.skus:
        request = instance(skus, options.classes)
        diverse = msgspec.structs.replace(request, spot_share=0.5, pool_share=0.25)
        for name, one, bar in (
            (f"plan_{skus}_skus", request, {50: 2, 500: 4}.get(skus, 8)),
            (f"plan_{skus}_skus_diverse", diverse, 20),
        ):
            start, busy = time.monotonic(), time.process_time()
            answer = plan(one, 60, alternatives=options.alternatives)
            line = {
                "figure": name,
                "value": round(time.monotonic() - start, 2),
                "unit": "s",
                "bar": bar,
                "better": "lower",
                "cpu_s": round(time.process_time() - busy, 2),
            }
            if isinstance(answer, Plan):
                line |= {
                    "gap": round(answer.solver.gap, 4),
                    "usd_per_hour": round(answer.usd_per_hour, 2),
                    "solver_s": round(answer.solver.seconds, 2),
                    "rounds": answer.solver.rounds,
                    "columns": answer.solver.columns,
                    "classes": len(one.workload.classes),
                    "wrong": [text for text in answer.warnings if "CHECK" in text],
                }
            else:
                line |= {"infeasible": answer.constraint, "why": answer.why}
            line["peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
            print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
