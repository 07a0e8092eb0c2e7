"""The optimum by trying everything: every node count, every packing of replicas onto nodes, an LP for the flows.

Written from docs/planning.md alone; shares nothing with planner.plan but the rules' numbers (a, h, limits), which it is given.
"""

import itertools
from collections import Counter
from typing import Any

import highspy
import numpy as np

from planner.facts.perf import Book
from planner.plan.request import PlanRequest

SPOT = ("", -1)  # among the counts of a packing: GPUs in use on spot


def lp_feasible(n_cols, rows):
    """Whether 0 ≤ x ≤ 1 meets all rows (terms, low, high)."""
    highs = highspy.Highs()
    highs.setOptionValue("output_flag", False)
    for _ in range(n_cols):
        highs.addVar(0.0, 1.0)
    for terms, low, high in rows:
        index = np.array(list(terms), dtype=np.int32)
        highs.addRow(low, high, len(index), index, np.array(list(terms.values()), dtype=float))
    highs.run()
    return highs.getModelStatus() == highspy.HighsModelStatus.kOptimal


def layouts(stages: tuple[str, ...]) -> list[tuple[str, ...]]:
    """The bundles of the documentation."""
    found: list[tuple[str, ...]] = [(stage,) for stage in stages]
    if len(stages) > 1:
        found += [(stages[0], stages[-1]), stages[1:], stages, stages[1:-1]]
    return [b for b in dict.fromkeys(found) if b]


class Brute:
    def __init__(self, request: PlanRequest, stages, rules):
        self.request, self.stages, self.rules = request, stages, rules
        self.book = Book(request.profiles, request.facts, request.gpus)
        self.usable = {gpu.name: gpu.usable_gib for gpu in request.gpus}
        self.options = []  # (model, bundle, gpu, g, {k: seconds})
        for model, names in stages.items():
            for bundle in layouts(names):
                for gpu in sorted({offer.accelerator for offer in request.offers}):
                    for g in (1, 2):
                        times = self.times(model, bundle, gpu, g)
                        if times:
                            self.options.append((model, bundle, gpu, g, times))

    def times(self, model, bundle, gpu, g):
        times = {}
        for k, item in enumerate(self.request.workload.classes):
            if item.model != model:
                continue
            rows = [
                [
                    p
                    for p in self.request.profiles
                    if (p.model, p.stage, p.gpu, p.gpus, p.shape) == (model, stage, gpu, g, item.shape)
                ]
                for stage in bundle
            ]
            if all(rows):
                parts = [found[0] for found in rows]
                weights = [p.weights_gib for p in parts if p.weights_gib is not None]
                if len(weights) == len(parts):
                    need = sum(weights) + max(p.peak_gib - (p.weights_gib or 0) for p in parts)
                else:
                    need = sum(p.peak_gib for p in parts)
                if need <= self.usable[gpu] + 1e-9:
                    times[k] = sum(p.seconds for p in parts)
        return times

    def packings(self, offer):
        """Every way to fill one node: Counter of option indices."""
        fits = [(i, o[3]) for i, o in enumerate(self.options) if o[2] == offer.accelerator]

        def fill(at, room):
            if at == len(fits):
                yield ()
                return
            i, g = fits[at]
            for n in range(room // g + 1):
                for rest in fill(at + 1, room - n * g):
                    yield ((i, n), *rest) if n else rest

        return list(fill(0, offer.count))

    def best(self):
        request = self.request
        caps = [offer.max_nodes for offer in request.offers]
        combos = itertools.product(*(range((cap or 0) + 1) for cap in caps))
        priced = sorted((sum(n * o.usd_per_hour for n, o in zip(y, request.offers, strict=True)), y) for y in combos)
        for usd, y in priced:
            if self.allowed(y, usd) and self.serves(y):
                return usd
        return None

    def allowed(self, y, usd):
        request = self.request
        if request.pool_share is not None:
            pools: Counter[Any] = Counter()
            for n, o in zip(y, request.offers, strict=True):
                if o.spot:
                    pools[o.cloud, o.region, o.accelerator] += n * o.usd_per_hour
            if any(spend > request.pool_share * usd + 1e-9 for spend in pools.values()):
                return False
        return True

    def serves(self, y):
        """Packings of all nodes, deduplicated by (cell, option) totals."""
        totals: set[Any] = {frozenset()}
        for n, offer in zip(y, self.request.offers, strict=True):
            for _ in range(n):
                grown = set()
                for packing in self.packings(offer):
                    for total in totals:
                        counts = Counter(dict(total))
                        for i, m in packing:
                            counts[offer.cloud, i] += m
                            counts[SPOT] += m * self.options[i][3] * offer.spot
                        grown.add(frozenset(counts.items()))
                totals = grown
        placed = {frozenset((at, n) for at, n in total if at != SPOT and n) for total in totals if self.spread(total)}
        kept = [total for total in placed if self.enough(dict(total))]
        kept.sort(key=lambda total: -sum(n for _, n in total))
        return any(self.feasible(dict(total)) for total in kept)

    def spread(self, total):
        """Whether no more of the GPUs in use than allowed are on spot."""
        counts = dict(total)
        spot = counts.pop(SPOT, 0)
        used = sum(n * self.options[i][3] for (_, i), n in counts.items())
        return self.request.spot_share is None or spot <= self.request.spot_share * used + 1e-9

    def enough(self, counts):
        """Necessary: every stage's replicas carry at least its load at the shortest times there."""
        for rule in self.request.rules:
            n = sum(
                m
                for (_, i), m in counts.items()
                if self.options[i][0] == rule.model and rule.stage in self.options[i][1]
            )
            if n < rule.replicas_min or (rule.replicas_max is not None and n > rule.replicas_max):
                return False
        for model, names in self.stages.items():
            for stage in names:
                there = [
                    (i, m)
                    for (_, i), m in counts.items()
                    if self.options[i][0] == model and stage in self.options[i][1]
                ]
                load = 0.0
                for k, item in enumerate(self.request.workload.classes):
                    if item.model == model:
                        load += item.rate_per_s * min((self.options[i][4].get(k, 1e9) for i, _ in there), default=1e9)
                if load > sum(m for _, m in there) + 1e-9:
                    return False
        return True

    def feasible(self, counts):  # noqa: C901, PLR0912
        classes = self.request.workload.classes
        rows: list[Any] = []
        column: dict[Any, int] = {}
        cells = sorted({cell for cell, _ in counts})
        for cell, i in counts:
            for k in self.options[i][4]:
                if self.quick_enough(counts, cell, i, k):
                    column[cell, i, k] = len(column)
        share: dict[Any, int] = {}
        for k in range(len(classes)):
            for cell in cells:
                share[k, cell] = len(column) + len(share)
        for k, item in enumerate(classes):
            rows.append(({share[k, cell]: 1.0 for cell in cells}, 1.0, 1.0))
            for cell in cells:
                for stage in self.stages[item.model]:
                    terms = {
                        c: 1.0
                        for (ce, i, kk), c in column.items()
                        if (ce, kk) == (cell, k) and stage in self.options[i][1]
                    }
                    rows.append(({**terms, share[k, cell]: -1.0}, 0.0, 0.0))
                if k in self.rules.limit_s:
                    terms = {c: self.options[i][4][k] for (ce, i, kk), c in column.items() if (ce, kk) == (cell, k)}
                    rows.append(({**terms, share[k, cell]: -self.rules.limit_s[k]}, -1e30, 0.0))
        queues: dict[Any, Any] = {}
        for (cell, i), n in counts.items():
            model, bundle = self.options[i][:2]
            a, h, _ = self.rules.queues[model, "+".join(bundle)]
            load = {
                c: classes[k].rate_per_s * self.options[i][4][k]
                for (ce, ii, k), c in column.items()
                if (ce, ii) == (cell, i)
            }
            if load:
                rows.append((load, -1e30, a * n))
            if self.request.spot_share is not None:  # a replica in use has work
                rows.append(({c: 1.0 for (ce, ii, _), c in column.items() if (ce, ii) == (cell, i)}, 1e-3 * n, 1e30))
            loads, total, _ = queues.get((model, bundle, cell), ({}, 0.0, 0))
            queues[model, bundle, cell] = ({**loads, **load}, total + a * n, h)
        for load, most, h in queues.values():
            if most - h < 0:
                return False  # an open queue that can serve nothing: the same plan without it comes along on its own
            if load:
                rows.append((load, -1e30, most - h))
        return lp_feasible(len(column) + len(share), rows)

    def quick_enough(self, counts, cell, i, k):
        """Whether the quickest way through this option, over all options on offer in the cell, is within the limit."""
        limit = self.rules.limit_s.get(k)
        if limit is None:
            return True
        model, bundle, _, _, times = self.options[i]
        offered = {
            o.accelerator: max(
                x.count for x in self.request.offers if (x.cloud, x.accelerator) == (cell, o.accelerator)
            )
            for o in self.request.offers
            if o.cloud == cell
        }
        least: dict[Any, Any] = {}
        for m, b, gpu, g, t in self.options:
            if m == model and k in t and offered.get(gpu, 0) >= g:
                least[b] = min(least.get(b, 1e9), t[k])

        def cover(left):
            if not left:
                return 0.0
            return min(
                (
                    least[b] + cover([s for s in left if s not in b])
                    for b in least
                    if left[0] in b and set(b) <= set(left)
                ),
                default=1e9,
            )

        return times[k] + cover([s for s in self.stages[model] if s not in bundle]) <= limit * (1 + 1e-9)
