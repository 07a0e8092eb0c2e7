"""A plan's queues, event by event. Knows nothing of how they were estimated."""

import heapq
import itertools
import random
from collections import defaultdict, deque
from typing import Any

import msgspec
import numpy as np

from planner.domain import RequestClass, Shape
from planner.facts.perf import Book
from planner.plan import Plan, PlanRequest, Row


class Queue(msgspec.Struct):
    """First come, first served. ``idle``: replicas (class → seconds), the one idle for longest first.

    ``waiting``: class → (since, request, step), in order.
    """

    idle: list[dict[int, float]]
    waiting: dict[int, deque[tuple[float, int, int]]]


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
    rate, cv2 = sum(c.rate_per_s for c in classes), request.workload.cv2
    kinds = draw.choices(range(len(classes)), [c.rate_per_s for c in classes], k=requests)
    book = Book(request.profiles, request.facts, request.gpus)
    ways = [_ways(answer, item, book.stages(item.model)) for item in classes]
    taken = [draw.choices(*ways[k])[0] for k in kinds]
    starts = list(itertools.accumulate(draw.gammavariate(1 / cv2, cv2 / rate) for _ in range(requests)))
    spans: dict[int, list[tuple[int, float]]] = defaultdict(list)
    working: list[tuple[float, int, int, dict[int, float]]] = []  # done at, request, step, replica
    arrived, now = 0, 0.0
    while arrived < requests or working:
        if arrived < requests and (not working or starts[arrived] <= working[0][0]):
            at, step, now = arrived, 0, starts[arrived]
            arrived += 1
        else:
            now, at, step, replica = heapq.heappop(working)
            _next(queues[classes[kinds[at]].model, taken[at][step]], replica, now, working)
            step += 1
        if step < len(taken[at]):
            _join(queues[classes[kinds[at]].model, taken[at][step]], (at, step), kinds[at], now, working)
        else:
            spans[kinds[at]].append((at, now - starts[at]))
    return Served({k: [span for _, span in sorted(some)] for k, some in spans.items()}, requests / now)


def _join(queue: Queue, one: tuple[int, int], k: int, now: float, working: list[Any]) -> None:
    """Start on the replica idle for longest of those that take the class, or wait."""
    for at, replica in enumerate(queue.idle):
        if k in replica:
            del queue.idle[at]
            heapq.heappush(working, (now + replica[k], *one, replica))
            return
    queue.waiting[k].append((now, *one))


def _next(queue: Queue, replica: dict[int, float], now: float, working: list[Any]) -> None:
    """A replica is free: it takes whoever joined first of those whom it can serve."""
    able = [(queue.waiting[k][0], k) for k in replica if queue.waiting[k]]
    if able:
        (_, *one), k = min(able)
        queue.waiting[k].popleft()
        heapq.heappush(working, (now + replica[k], *one, replica))
    else:
        queue.idle.append(replica)


def _queues(request: PlanRequest, answer: Plan) -> dict[tuple[str, str], Queue]:
    """(model, bundle) → its queue, all replicas idle."""
    book = Book(request.profiles, request.facts, request.gpus)
    queues: dict[tuple[str, str], Queue] = {}
    for row in answer.rows:
        seconds: dict[int, float] = {}
        for k, item in enumerate(request.workload.classes):
            if item.model == row.model and _serves(row, item.shape):
                found = book.predict(
                    row.model, row.stage, row.offer.accelerator, item.shape, row.gpus_per_replica, row.precision
                )
                assert found is not None
                seconds[k] = found.seconds
        queue = queues.setdefault((row.model, row.stage), Queue([], defaultdict(deque)))
        queue.idle.extend([seconds] * row.replicas)
    return queues


def _serves(row: Row, shape: Shape) -> bool:
    return any(route.shape == shape for route in row.routes)


def _ways(answer: Plan, item: RequestClass, stages: tuple[str, ...]) -> tuple[list[tuple[str, ...]], list[float]]:
    """Ways through bundles from the first stage to the last, and how likely each is, by the plan's routes."""
    ways: list[tuple[str, ...]] = []
    weights: list[float] = []
    partial: list[tuple[tuple[str, ...], tuple[str, ...], float]] = [((), stages, 1.0)]
    while partial:
        way, left, weight = partial.pop()
        if not left:
            ways.append(way)
            weights.append(weight)
            continue
        rates: dict[str, float] = defaultdict(float)
        for row in answer.rows:
            parts = row.stage.split("+")
            if row.model == item.model and left[0] in parts and set(parts) <= set(left):
                rates[row.stage] += sum(route.rate_per_min for route in row.routes if route.shape == item.shape)
        for bundle, rate in rates.items():
            rest = tuple(stage for stage in left if stage not in bundle.split("+"))
            if rate > 0:
                partial.append(((*way, bundle), rest, weight * rate / sum(rates.values())))
    return ways, weights
