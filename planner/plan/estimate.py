"""What a solution would be like to use: loads, waits, and the p95 of each class."""

import msgspec

from planner.facts import queueing
from planner.facts.response import Visit, Way, quantile
from planner.plan.build import Model, Site
from planner.plan.level import partitions

TINY = 1e-7  # a share of a class below this is the solver's rounding

_Queue = tuple[str, str, str]  # model, bundle, cell


class State(msgspec.Struct, frozen=True):
    """One queue of a solution. ``load`` in busy replicas."""

    replicas: int
    load: float
    service_s: float
    waits: float
    wait_s: float


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
    workload = model.universe.request.workload
    flows = [
        (workload.classes[k].rate_per_s * share_of(values, column), site.option.served[k].seconds)
        for site in sites
        for k, column in site.flows.items()
    ]
    rate = sum(each for each, _ in flows)
    load = sum(each * seconds for each, seconds in flows)
    replicas = round(sum(values[site.count] for site in sites))
    if rate <= 0:
        return State(replicas, 0.0, 0.0, 0.0, 0.0)
    mean = load / rate
    cs2 = max(sum(each * seconds**2 for each, seconds in flows) / rate / mean**2 - 1, 0.0)
    waits, wait_s = queueing.wait(replicas, load, mean, workload.cv2, cs2)
    return State(replicas, load, mean, waits, wait_s)


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
        flows = [(share_of(values, s.flows[k]), s.option.served[k].seconds) for s in sites if k in s.flows]
        total = sum(share for share, _ in flows)
        if total > 0:
            left[key] = total
            services = tuple((share / total, seconds) for share, seconds in flows if share > 0)
            visits[key] = Visit(services, queues[key].waits, queues[key].wait_s)
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
