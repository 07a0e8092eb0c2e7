"""The p95 estimate and the throughput of a plan, against a seeded discrete-event simulation of its queues."""

import heapq
import random
from collections import defaultdict

import msgspec
import numpy as np
import pytest

from planner.domain import RequestClass, Workload
from planner.plan import Plan, PlanRequest, plan
from tests.planner_plan.test_plan import GPUS, SHAPE, offer, profiles


def simulate(answer: Plan, rate: float, cv2: float, requests: int, seed: int):
    """Response times. Each queue serves first come, first served on whichever of its replicas is free first."""
    draw = random.Random(seed)
    ways = {row.stage for row in answer.rows}
    order = sorted(ways, key=lambda stage: ("encode", "denoise", "decode").index(stage.split("+")[0]))
    busy = {stage: [0.0] * sum(r.replicas for r in answer.rows if r.stage == stage) for stage in order}
    for heap in busy.values():
        heapq.heapify(heap)
    seconds = {stage: next(r.seconds_per_request for r in answer.rows if r.stage == stage) for stage in order}
    now, arrivals = 0.0, []
    for _ in range(requests):
        now += draw.gammavariate(1 / cv2, cv2 / rate)
        arrivals.append(now)
    ready, done = list(arrivals), defaultdict(float)
    for stage in order:
        for at in sorted(range(requests), key=ready.__getitem__):
            start = max(ready[at], heapq.heappop(busy[stage]))
            ready[at] = start + seconds[stage]
            heapq.heappush(busy[stage], ready[at])
            done[at] = ready[at]
    spans = [done[at] - arrivals[at] for at in range(requests // 20, requests)]
    return float(np.quantile(spans, 0.95)), requests / max(done.values())


@pytest.mark.parametrize(("rate", "p95"), [(0.2, 60.0), (0.5, 30.0), (1.0, 45.0), (0.1, 120.0)])
def test_p95_within_ten_per_cent_of_a_simulation(rate, p95, capsys):
    one = PlanRequest(
        Workload((RequestClass("m", SHAPE, rate, p95),)),
        (offer("H100", 3.0, cap=None),),
        GPUS,
        profiles=profiles(),
        bundles=False,
    )
    answer = plan(one, 20, alternatives=False)
    assert isinstance(answer, Plan)
    runs = [simulate(answer, rate, 1.0, 20_000, seed) for seed in range(4)]
    measured = float(np.mean([span for span, _ in runs]))
    assert answer.p95_s == pytest.approx(measured, rel=0.10)
    assert min(through for _, through in runs) >= 0.97 * rate
    wild = plan(msgspec.structs.replace(one, workload=Workload(one.workload.classes, 4.0)), 20, alternatives=False)
    assert isinstance(wild, Plan)
    bursty = float(np.mean([simulate(wild, rate, 4.0, 20_000, seed)[0] for seed in range(4)]))
    with capsys.disabled():
        print(
            f"\nrate {rate}: p95 {answer.p95_s:.1f} s, simulated {measured:.1f} s; cv² 4: {wild.p95_s:.1f} s, {bursty:.1f} s"
        )
