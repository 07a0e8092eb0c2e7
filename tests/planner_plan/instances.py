"""Random tiny instances, small enough to try everything."""

import random

from planner.domain import Gpu, Offer, Profile, RequestClass, Shape, Workload
from planner.plan import PlanRequest, StageRule

GPUS = tuple(Gpu(name, memory, memory - 0.5, 500, 100) for name, memory in (("L4", 24), ("A100", 40), ("H100", 80)))
SHAPES = (Shape(512, 512, 1, 4), Shape(512, 512, 1, 20), Shape(1024, 1024, 1, 20))


def tiny(seed: int, slo: bool = False) -> tuple[PlanRequest, dict[str, tuple[str, ...]]]:
    """An instance and its models' stages."""
    draw = random.Random(seed)
    cards = draw.sample(GPUS, 2)
    clouds = ["one"] if draw.random() < 0.7 else ["one", "two"]
    models = ["m"] if draw.random() < 0.8 else ["m", "v"]
    stages: dict[str, tuple[str, ...]] = {
        model: ("encode", "denoise", "decode") if draw.random() < 0.6 and len(models) == 1 else ("encode", "denoise")
        for model in models
    }
    profiles, classes = [], []
    for model, names in stages.items():
        for shape in draw.sample(SHAPES, 1 if len(models) > 1 else draw.choice((1, 2, 3))):
            classes.append(RequestClass(model, shape, draw.uniform(0.02, 0.25), draw.uniform(40, 200) if slo else None))
            scale = shape.steps * shape.width / 5120
            for stage in names:
                base = {"encode": 0.6, "denoise": 3.0 * scale, "decode": 1.0}[stage]
                for card in cards:
                    speed = {"L4": 1.0, "A100": 0.5, "H100": 0.25}[card.name]
                    weights = {"encode": 9.0, "denoise": 14.0, "decode": 1.0}[stage] if draw.random() < 0.9 else None
                    seconds = base * speed * draw.uniform(0.7, 1.4)
                    peak = (weights or 9.0) + draw.uniform(0.5, 6)
                    profiles.append(
                        Profile(model, stage, card.name, shape, seconds, peak, "measured", weights_gib=weights)
                    )
                    if draw.random() < 0.15:
                        profiles.append(
                            Profile(
                                model,
                                stage,
                                card.name,
                                shape,
                                seconds * 0.6,
                                peak,
                                "measured",
                                gpus=2,
                                weights_gib=weights,
                            )
                        )
    offers = []
    for n in range(draw.choice((2, 3, 3))):
        card, count = draw.choice(cards), draw.choice((1, 1, 1, 2, 3))
        price = {"L4": 0.7, "A100": 1.6, "H100": 3.0}[card.name] * count * draw.uniform(0.8, 1.3)
        spot = draw.random() < 0.4
        offers.append(
            Offer(
                draw.choice(clouds),
                "r",
                f"i{n}",
                card.name,
                count,
                spot,
                round(price * (0.4 if spot else 1), 3),
                draw.choice((1, 2)) if count > 1 else draw.choice((1, 2, 3)),
            )
        )
    rules: tuple[StageRule, ...] = ()
    if draw.random() < 0.2:
        rules = (StageRule("m", "encode", replicas_max=draw.choice((1, 2, 3))),)
    request = PlanRequest(
        Workload(tuple(classes)),
        tuple(offers),
        GPUS,
        profiles=tuple(profiles),
        rules=rules,
        spot_share=draw.choice((None, None, 0.5)),
        pool_share=draw.choice((None, None, None, 0.6)),
    )
    return request, stages
