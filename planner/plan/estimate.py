"""What a solution would be like to use: loads, waits, and the p95 of each class."""

import msgspec

from planner.facts import dispatch, overlap, queueing
from planner.facts.response import Visit, Way, quantile
from planner.plan.build import Model, Site
from planner.plan.level import partitions

TINY = 1e-7  # a share of a class below this is the solver's rounding

_Queue = tuple[str, str, str]  # model, bundle, cell


class State(msgspec.Struct, frozen=True):
    """One queue of a solution. ``load`` in busy replicas, as the plan's flows have it.

    ``services``: class → (share, seconds) on each type of GPU that takes it, as first come, first served has it.
    ``spans``: class → (share, seconds) of wait and service together, of a queue whose waits follow no formula.
    """

    replicas: int
    load: float
    service_s: float
    waits: float
    wait_s: float
    services: dict[int, tuple[tuple[float, float], ...]]
    spans: dict[int, tuple[tuple[float, float], ...]] = {}

    def visit(self, k: int) -> Visit:
        """What a request of a class meets here."""
        spans = self.spans.get(k)
        return Visit(spans, 0.0, 0.0) if spans else Visit(self.services[k], self.waits, self.wait_s)


class Outlook(msgspec.Struct, frozen=True):
    """All queues, each class's p95 and mean seconds of service, and how much more of the same mix would fit."""

    queues: dict[_Queue, State]
    p95_s: dict[int, float]
    service_s: dict[int, float]
    growth: float


def share_of(values: list[float], column: int) -> float:
    """A flow, without the solver's rounding."""
    return values[column] if values[column] > TINY else 0.0


def outlook(model: Model, values: list[float]) -> Outlook:
    """Allen–Cunneen for every queue, convolved along every way that a class takes."""
    request = model.universe.request
    members: dict[_Queue, list[Site]] = {}
    for site in model.sites:
        if values[site.count] > 0:
            members.setdefault((site.option.model, site.option.bundle, site.cell), []).append(site)
    queues = {key: _state(model, sites, values) for key, sites in members.items()}
    p95: dict[int, float] = {}
    service: dict[int, float] = {}
    for k in range(len(request.workload.classes)):
        ways = _ways(model, members, queues, values, k)
        p95[k] = quantile(ways) if ways else float("inf")
        service[k] = sum(
            way.share * share * seconds for way in ways for visit in way.visits for share, seconds in visit.services
        )
    growth = min((state.replicas / state.load for state in queues.values() if state.load > 0), default=1.0)
    return Outlook(queues, p95, service, growth)


def _state(model: Model, sites: list[Site], values: list[float]) -> State:
    """All replicas of the queue at work drain it at Σ n/s; their number at that pace is what Erlang's formula is asked for.

    How much the seconds of one GPU type vary counts as variability, not that types differ: a slow replica stays slow.
    """
    workload = model.universe.request.workload
    rates: list[dict[int, float]] = []
    for site in sites:
        shares = {k: share_of(values, column) for k, column in site.flows.items()}
        rates.append({k: workload.classes[k].rate_per_s * share for k, share in shares.items() if share > 0})
    seconds = [{k: site.option.served[k].seconds for k in own} for site, own in zip(sites, rates, strict=True)]
    counts = [round(values[site.count]) for site in sites]
    load = sum(rate * seconds[at][k] for at, own in enumerate(rates) for k, rate in own.items())
    if load <= 0:
        return State(sum(counts), 0.0, 0.0, 0.0, 0.0, {})
    rate = sum(rate for own in rates for rate in own.values())
    used = [at for at, own in enumerate(rates) if own]
    classes = {k for own in rates for k in own}
    if any(k not in rates[at] for k in classes for at in used):
        return _played(counts, rates, seconds, load, workload.cv2)
    flows = dispatch.first_come(counts, rates, seconds)
    waits, wait_s = _wait(counts, flows, seconds, workload.cv2)
    services: dict[int, tuple[tuple[float, float], ...]] = {}
    for k in sorted(classes):
        total = sum(own.get(k, 0.0) for own in flows)
        services[k] = tuple((flows[at][k] / total, seconds[at][k]) for at in used)
    return State(sum(counts), load, load / rate, waits, wait_s, services)


def _played(
    counts: list[int], rates: list[dict[int, float]], seconds: list[dict[int, float]], load: float, cv2: float
) -> State:
    """Of a queue whose classes do not all go to the same types."""
    total: dict[int, float] = {}
    for own in rates:
        for k, rate in own.items():
            total[k] = total.get(k, 0.0) + rate
    busiest = max(
        sum(rate * seconds[at][k] for k, rate in own.items()) / counts[at] for at, own in enumerate(rates) if own
    )
    found = overlap.play(counts, total, seconds, cv2, busiest)
    whole = sum(total.values())
    waits = sum(total[k] * one.waits for k, one in found.items()) / whole
    late = sum(total[k] * one.waits * one.wait_s for k, one in found.items()) / whole
    return State(
        sum(counts),
        load,
        load / whole,
        waits,
        late / waits if waits else 0.0,
        {k: one.services for k, one in found.items()},
        {k: one.spans for k, one in found.items() if one.spans},
    )


def _wait(
    counts: list[int], flows: list[dict[int, float]], seconds: list[dict[int, float]], cv2: float
) -> tuple[float, float]:
    """(probability of waiting, mean seconds of those who wait) for replicas of several types that share a queue."""
    used = [at for at, own in enumerate(flows) if own]
    means = {at: _moments(flows[at], seconds[at]) for at in used}
    rate = sum(rate for own in flows for rate in own.values())
    drain = sum(counts[at] / means[at][0] for at in used)
    cs2 = sum(sum(flows[at].values()) * means[at][1] for at in used) / rate
    servers = sum(counts[at] for at in used)
    return queueing.wait(servers, rate * servers / drain, servers / drain, cv2, cs2)


def _moments(rates: dict[int, float], seconds: dict[int, float]) -> tuple[float, float]:
    """(mean seconds, squared coefficient of variation) of one GPU type's work."""
    rate = sum(rates.values())
    mean = sum(each * seconds[k] for k, each in rates.items()) / rate
    second = sum(each * seconds[k] ** 2 for k, each in rates.items()) / rate
    return mean, max(second / mean**2 - 1, 0.0)


def _ways(
    model: Model, members: dict[_Queue, list[Site]], queues: dict[_Queue, State], values: list[float], k: int
) -> list[Way]:
    """Cut the class's flows into ways through bundles, the largest bundles first."""
    name = model.universe.request.workload.classes[k].model
    left: dict[_Queue, float] = {}
    visits: dict[_Queue, Visit] = {}
    for key, sites in members.items():
        if key[0] != name:
            continue
        total = sum(share_of(values, s.flows[k]) for s in sites if k in s.flows)
        if total > 0:
            left[key] = total
            visits[key] = queues[key].visit(k)
    parts = sorted(partitions(model.universe.stages[name], model.universe.bundles[name]), key=len)
    ways: list[Way] = []
    for cell in dict.fromkeys(key[2] for key in left):
        for part in parts:
            keys = [(name, "+".join(bundle), cell) for bundle in part]
            share = min((left.get(key, 0.0) for key in keys), default=0.0)
            if share > TINY:
                ways.append(Way(share, tuple(visits[key] for key in keys)))
                for key in keys:
                    left[key] -= share
    return ways
