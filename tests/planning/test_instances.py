"""Random tiny instances through the command line: what ``plan -o json`` answers is what trying everything finds.

``DISAGCTL_SEEDS=400`` tries more, ``DISAGCTL_FIRST_SEED`` others.
"""

import csv
import json
import os
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
import yaml

from disagctl.planning import shipped
from planner.domain import Shape
from planner.facts import parse_gpus
from planner.plan import PlanRequest
from tests.planner_plan.brute import Brute
from tests.planner_plan.instances import tiny
from tests.planning.conftest import Cli

FIRST = int(os.environ.get("DISAGCTL_FIRST_SEED", "50000"))
COUNT = int(os.environ.get("DISAGCTL_SEEDS", "12"))
NO_SLO: Any = SimpleNamespace(
    queues=defaultdict(lambda: (0.98, 0.0, None)), limit_s={}
)  # a, h as docs/planning.md has them


def timed_through(request: PlanRequest) -> PlanRequest:
    """Without the rows of two GPUs that do not come for every shape: the planner would carry them over to the others."""
    shapes: dict[str, set[Shape]] = defaultdict(set)
    for item in request.workload.classes:
        shapes[item.model].add(item.shape)
    timed: dict[tuple[str, str, str, int], set[Shape]] = defaultdict(set)
    for p in request.profiles:
        timed[p.model, p.stage, p.gpu, p.gpus].add(p.shape)
    kept = tuple(p for p in request.profiles if timed[p.model, p.stage, p.gpu, p.gpus] >= shapes[p.model])
    return msgspec.structs.replace(request, profiles=kept)


def write_catalog(path: Path, request: PlanRequest) -> None:
    with path.open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["cloud", "region", "instance_type", "accelerator", "count", "price", "spot_price", "max_nodes"])
        for o in request.offers:
            price = ["", o.usd_per_hour] if o.spot else [o.usd_per_hour, ""]
            out.writerow([o.cloud, o.region, o.instance_type, o.accelerator, o.count, *price, o.max_nodes])


def write_profiles(path: Path, request: PlanRequest) -> None:
    with path.open("w", newline="") as file:
        out = csv.writer(file)
        columns = ["model", "stage", "gpu", "width", "height", "frames", "steps", "seconds", "peak_gib", "source"]
        out.writerow([*columns, "gpus", "weights_gib"])
        for p in request.profiles:
            shape = (p.shape.width, p.shape.height, p.shape.frames, p.shape.steps)
            held = p.weights_gib if p.weights_gib is not None else ""
            out.writerow([p.model, p.stage, p.gpu, *shape, p.seconds, p.peak_gib, p.source, p.gpus, held])


def spec_of(request: PlanRequest, stages: dict[str, tuple[str, ...]]) -> dict[str, Any]:
    models = []
    for name, parts in stages.items():
        mine = [item for item in request.workload.classes if item.model == name]
        total = sum(item.rate_per_s for item in mine)
        shapes = [
            {
                "size": f"{item.shape.width}x{item.shape.height}",
                "frames": item.shape.frames,
                "steps": item.shape.steps,
                "share": item.rate_per_s / total,
            }
            for item in mine
        ]
        model: dict[str, Any] = {"id": f"acme/{name}"}
        if "decode" not in parts:  # only a synthetic model has stages of its own
            model = {"id": "synthetic", "stages": {stage: {} for stage in parts}}
        models.append({"name": name, **model, "workload": {"rate": f"{total:.15f}/s", "shapes": shapes}})
    spec: dict[str, Any] = {"name": "tiny", "models": models, "infra": sorted({o.cloud for o in request.offers})}
    spec |= {"catalog": "prices.csv", "profiles": "timings.csv"}
    if request.rules:
        spec["stages"] = {
            rule.stage if len(stages) == 1 else f"{rule.model}.{rule.stage}": {"replicas": f"1..{rule.replicas_max}"}
            for rule in request.rules
        }
    placement = {"max_spot_share": request.spot_share, "max_pool_share": request.pool_share}
    if any(value is not None for value in placement.values()):
        spec["placement"] = {key: value for key, value in placement.items() if value is not None}
    return spec


@pytest.mark.parametrize("seed", range(FIRST, FIRST + COUNT))
def test_the_command_line_finds_what_trying_everything_finds(seed: int, tmp_path: Path, cli: Cli) -> None:
    request, stages = tiny(seed)
    gpus = tuple(parse_gpus(shipped.text(shipped.GPUS), shipped.GPUS))
    request = timed_through(msgspec.structs.replace(request, gpus=gpus))
    write_catalog(tmp_path / "prices.csv", request)
    write_profiles(tmp_path / "timings.csv", request)
    (tmp_path / "service.yaml").write_text(yaml.safe_dump(spec_of(request, stages), sort_keys=False))
    code, out, err = cli("plan", "service.yaml", "-o", "json")
    best = Brute(request, stages, NO_SLO).best()
    if best is None:
        assert code == 4, (code, out, err)
    else:
        assert code == 0, (code, out, err)
        assert json.loads(out)["usd_per_hour"] == pytest.approx(best, abs=1e-6)
