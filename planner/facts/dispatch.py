"""Which GPU type a request of a shared queue ends up on, when each goes to the replica that has been idle for longest.

All replicas then wait about as long for work, whatever their speed: with that idle time I a type of n replicas and s seconds
a request serves n/(s + I) requests a second, and I follows from the rate of all. Busy: in proportion to speed; quiet: in
proportion to the number of replicas. A plan's own split of the flow says only what could be carried.
"""

from collections.abc import Sequence

ROUNDS = 12
HALVINGS = 60

Rates = dict[int, float]  # class → requests a second


def first_come(counts: Sequence[int], rates: Sequence[Rates], seconds: Sequence[dict[int, float]]) -> list[Rates]:
    """The rates that each type serves of each class; ``rates``: as planned, which says who may serve what."""
    total: Rates = {}
    for own in rates:
        for k, rate in own.items():
            total[k] = total.get(k, 0.0) + rate
    able = {k: [at for at, own in enumerate(rates) if k in own] for k in total}
    flows = [dict(own) for own in rates]
    used = [at for at, own in enumerate(flows) if own and counts[at]]
    for _ in range(ROUNDS if len(used) > 1 else 0):
        mean = {at: sum(r * seconds[at][k] for k, r in flows[at].items()) / sum(flows[at].values()) for at in used}
        idle = _idle([(counts[at], mean[at]) for at in used], sum(total.values()))
        pull = {at: counts[at] / (mean[at] + idle) for at in used}
        for k, rate in total.items():
            whole = sum(pull[at] for at in able[k])
            for at in able[k]:
                flows[at][k] = rate * pull[at] / whole
    return flows


def _idle(types: Sequence[tuple[int, float]], rate: float) -> float:
    """I of Σ n/(s + I) = rate; 0 when they are always at work."""
    low, high = 0.0, sum(count for count, _ in types) / rate
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        if sum(count / (seconds + middle) for count, seconds in types) > rate:
            low = middle
        else:
            high = middle
    return low
