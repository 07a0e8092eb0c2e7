"""From a solution to rows: replicas onto nodes, nodes onto offers, money onto rows."""

from collections import defaultdict

import msgspec

from planner.domain import Offer
from planner.facts.perf import LEAST_LOAD_S, RANK
from planner.plan.build import Model
from planner.plan.estimate import share_of
from planner.plan.result import NodeCount, Route, Row


class _Node(msgspec.Struct):
    offer: Offer
    number: int
    used: dict[int, int]  # site → GPUs

    @property
    def free(self) -> int:
        return self.offer.count - sum(self.used.values())


def lay_out(model: Model, values: list[float]) -> tuple[tuple[Row, ...], tuple[NodeCount, ...]]:
    """Rows and what is rented. Replicas of several rows may share a node; each row bears its part by GPUs."""
    placed: dict[tuple[int, int], list[tuple[_Node, int]]] = defaultdict(list)  # (site, offer) → (node, GPUs)
    nodes = _nodes(model, values)
    for at in range(len(model.market.pools)):
        _place(model, values, at, nodes.get(at, []))
    everything = [node for some in nodes.values() for node in some]
    offers: dict[str, int] = {}
    for node in everything:
        where = offers.setdefault(_name(node.offer), len(offers))
        for site, gpus in node.used.items():
            placed[site, where].append((node, gpus))
    idle = sum(node.offer.usd_per_hour for node in everything if not node.used)
    busy = sum(node.offer.usd_per_hour for node in everything if node.used)
    rows = [_row(model, values, site, homes, 1 + idle / busy if busy else 1.0) for (site, _), homes in placed.items()]
    order = {stage: at for stages in model.universe.stages.values() for at, stage in enumerate(stages)}
    rows.sort(
        key=lambda row: (row.model, order[row.stage.split("+")[0]], row.stage, -row.usd_per_hour, _name(row.offer))
    )
    return tuple(rows), _counts(everything)


def _name(offer: Offer) -> str:
    return f"{offer} {offer.usd_per_hour} {offer.where}"


def _nodes(model: Model, values: list[float]) -> dict[int, list[_Node]]:
    """The nodes of each pool, on-demand ones first; a tier's offers are filled in their order, bounded ones first."""
    nodes: dict[int, list[_Node]] = defaultdict(list)
    for tier, column in zip(model.market.tiers, model.rent, strict=True):
        wanted = round(values[column])
        for offer in tier.offers:
            take = wanted if offer.max_nodes is None else min(wanted, offer.max_nodes)
            nodes[tier.pool].extend(_Node(offer, n, {}) for n in range(take))
            wanted -= take
    for some in nodes.values():
        some.sort(key=lambda node: (node.offer.spot, -node.offer.count, _name(node.offer), node.number))
    return nodes


def _place(model: Model, values: list[float], pool: int, nodes: list[_Node]) -> None:
    """Largest replicas first, onto the first node with room: with powers of two this wastes nothing."""
    sites = [(at, site) for at, site in enumerate(model.sites) if site.pool == pool and values[site.count] > 0]
    sites.sort(key=lambda item: (-item[1].option.gpus, item[1].option.bundle, item[0]))
    for at, site in sites:
        todo = round(values[site.count])
        for node in nodes:
            fit = min(todo, node.free // site.option.gpus)
            if fit > 0:
                node.used[at] = node.used.get(at, 0) + fit * site.option.gpus
                todo -= fit
        if todo:
            raise ValueError(f"{todo} replicas of {site.option.bundle} on {site.option.gpu} found no node")


def _row(model: Model, values: list[float], at: int, homes: list[tuple[_Node, int]], burden: float) -> Row:
    site = model.sites[at]
    option, offer = site.option, homes[0][0].offer
    replicas = sum(gpus for _, gpus in homes) // option.gpus
    part = replicas / round(values[site.count])
    flows = [(k, share_of(values, column) * part) for k, column in site.flows.items() if share_of(values, column) > 0]
    classes = model.universe.request.workload.classes
    rates = {k: classes[k].rate_per_s * share for k, share in flows}
    rate = sum(rates.values())
    load = sum(each * option.served[k].seconds for k, each in rates.items())
    usd = burden * sum(node.offer.usd_per_hour * gpus / sum(node.used.values()) for node, gpus in homes)
    known = [option.served[k] for k in rates] or list(option.served.values())
    worst = max(known, key=lambda found: (RANK[found.source], found.error))
    card = next(gpu for gpu in model.universe.request.gpus if gpu.name == option.gpu)
    return Row(
        model=option.model,
        stage=option.bundle,
        offer=offer,
        nodes=len(homes),
        replicas=replicas,
        gpus_per_replica=option.gpus,
        seconds_per_request=load / rate if rate else known[0].seconds,
        utilisation=load / replicas,
        usd_per_hour=usd,
        source=worst.source,
        routes=tuple(Route(classes[k].shape, each * 60) for k, each in rates.items()),
        precision=option.precision,
        headroom_gib=card.usable_gib - max(found.peak_gib for found in known),
        usd_per_1000=usd / rate / 3.6 if rate else 0.0,
        error=worst.error,
        origin=worst.origin,
        load_s=max((found.load_s or LEAST_LOAD_S) for found in known),
    )


def _counts(nodes: list[_Node]) -> tuple[NodeCount, ...]:
    grouped: dict[str, list[_Node]] = defaultdict(list)
    for node in nodes:
        grouped[_name(node.offer)].append(node)
    return tuple(
        NodeCount(some[0].offer, len(some), len(some) * some[0].offer.usd_per_hour, sum(node.free for node in some))
        for _, some in sorted(grouped.items())
    )
