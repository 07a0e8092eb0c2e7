"""A plan's queues, event by event. Knows nothing of how they were estimated."""

import heapq
import itertools
import random
from collections import defaultdict

import msgspec
import numpy as np

from planner.domain import RequestClass, Shape
from planner.facts.perf import Book
from planner.plan import Plan, PlanRequest, Row


class Replica(msgspec.Struct):
    """One server of a queue. ``seconds``: of each class (index) it may serve."""

    seconds: dict[int, float]
    idle_since: float = 0.0


class Served(msgspec.Struct, frozen=True):
    """``spans``: class → response times in order of arrival; ``done_per_s``: departures over the time they took."""

    spans: dict[int, list[float]]
    done_per_s: float

    def p95(self, k: int) -> float:
        """Of one class, seconds, without the first twentieth."""
        mine = self.spans[k]
        return float(np.quantile(mine[len(mine) // 20 :], 0.95))


def simulate(request: PlanRequest, answer: Plan, requests: int, seed: int) -> Served:
    """Arrivals as the workload says (gamma gaps), each queue first come, first served by the replica idle for longest.

    One cloud; each class takes one way through the stages, drawn for every request by the plan's routes.
    """
    draw = random.Random(seed)
    classes = request.workload.classes
    queues = _queues(request, answer)
    stages = {
        model: Book(request.profiles, request.facts, request.gpus).stages(model) for model in {c.model for c in classes}
    }
    rate, cv2 = sum(c.rate_per_s for c in classes), request.workload.cv2
    weights = [c.rate_per_s for c in classes]
    counter = itertools.count()
    events: list[tuple[float, int, str, tuple[int, int], str]] = []
    now, arrived = 0.0, list[tuple[int, float]]()
    for at in range(requests):
        now += draw.gammavariate(1 / cv2, cv2 / rate)
        k = draw.choices(range(len(classes)), weights)[0]
        arrived.append((k, now))
        heapq.heappush(events, (now, next(counter), "arrive", (at, 0), ""))
    ways = [_way(answer, classes[k], stages[classes[k].model], draw) for k, _ in arrived]
    waiting: dict[tuple[str, str], list[tuple[int, int]]] = defaultdict(list)
    ends: dict[int, float] = {}
    working: dict[tuple[int, int], tuple[tuple[str, str], Replica]] = {}
    while events:
        now, _, what, (at, step), _ = heapq.heappop(events)
        k = arrived[at][0]
        if what == "done":
            key, replica = working.pop((at, step))
            replica.idle_since = now
            queues[key].append(replica)
            step += 1
            if step == len(ways[at]):
                ends[at] = now
            touched = [key]
        else:
            touched = []
        if step < len(ways[at]):
            key = (classes[k].model, ways[at][step])
            waiting[key].append((at, step))
            touched.append(key)
        for key in dict.fromkeys(touched):
            left = []
            for one in waiting[key]:
                able = [r for r in queues[key] if arrived[one[0]][0] in r.seconds]
                if not able:
                    left.append(one)
                    continue
                replica = min(able, key=lambda r: r.idle_since)
                queues[key].remove(replica)
                working[one] = key, replica
                heapq.heappush(events, (now + replica.seconds[arrived[one[0]][0]], next(counter), "done", one, ""))
            waiting[key] = left
    spans: dict[int, list[float]] = defaultdict(list)
    for at, (k, start) in enumerate(arrived):
        spans[k].append(ends[at] - start)
    return Served(spans, requests / max(ends.values()))


def _queues(request: PlanRequest, answer: Plan) -> dict[tuple[str, str], list[Replica]]:
    """Idle replicas of each (model, bundle)."""
    book = Book(request.profiles, request.facts, request.gpus)
    queues: dict[tuple[str, str], list[Replica]] = defaultdict(list)
    for row in answer.rows:
        seconds: dict[int, float] = {}
        for k, item in enumerate(request.workload.classes):
            if item.model == row.model and _serves(row, item.shape):
                found = book.predict(
                    row.model, row.stage, row.offer.accelerator, item.shape, row.gpus_per_replica, row.precision
                )
                assert found is not None
                seconds[k] = found.seconds
        queues[row.model, row.stage].extend(Replica(seconds) for _ in range(row.replicas))
    return queues


def _serves(row: Row, shape: Shape) -> bool:
    return any(route.shape == shape for route in row.routes)


def _way(answer: Plan, item: RequestClass, stages: tuple[str, ...], draw: random.Random) -> list[str]:
    """Bundles from the first stage to the last, each by its part of the routes."""
    way: list[str] = []
    left = list(stages)
    while left:
        rates: dict[str, float] = defaultdict(float)
        for row in answer.rows:
            parts = row.stage.split("+")
            if row.model == item.model and left[0] in parts and set(parts) <= set(left):
                for route in row.routes:
                    if route.shape == item.shape:
                        rates[row.stage] += route.rate_per_min
        bundle = draw.choices(list(rates), list(rates.values()))[0]
        way.append(bundle)
        left = [stage for stage in left if stage not in bundle.split("+")]
    return way
