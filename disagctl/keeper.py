"""Rented machines as the control loop sees them: what they hold, what they cost, and how to wish for others."""

from collections import Counter
from collections.abc import Sequence

from disagctl import clock
from disagctl.nodes import Nodes
from planner.domain import Offer
from planner.run.fleet import NodeWish
from planner.run.observe import NodeCount, Room

COMING = frozenset({"requested", "launching"})


class RentedMachines:
    """The loop's :class:`disagctl.controller.NodeKeeper` over :class:`disagctl.nodes.Nodes`. ``stand_ins``: by a wish's key,
    the offers to try when its first has no capacity, as ``up`` showed them."""

    def __init__(self, nodes: Nodes, stand_ins: dict[str, tuple[Offer, ...]]) -> None:
        self._nodes, self._stand_ins = nodes, stand_ins

    async def wish(self, wishes: Sequence[NodeWish], why: str) -> None:
        """Have these nodes."""
        wished = [NodeWish(one.key, self._stand_ins.get(one.key, one.offers), one.count) for one in wishes]
        await self._nodes.wish(wished, why)

    def rooms(self) -> tuple[Room, ...]:
        """Workers that the nodes hold, one a GPU, by type of GPU."""
        up: Counter[str] = Counter()
        coming: Counter[str] = Counter()
        for one in self.counts():
            up[one.offer.accelerator] += one.up * one.offer.count
            coming[one.offer.accelerator] += max(one.coming, one.wished - one.up) * one.offer.count
        return tuple(Room(name, up[name], coming[name]) for name in up)

    def counts(self) -> tuple[NodeCount, ...]:
        """Nodes of each wish. One counts as up once its agent has reported."""
        states: Counter[tuple[str, str]] = Counter()
        for row in self._nodes.open:
            state = "coming" if row.state in COMING else row.state
            if row.state == "up" and not self._nodes.reported(row.id):
                state = "coming"
            states[row.wish, state] += 1
        return tuple(
            NodeCount(
                one.key, one.offers[0], one.count, states[one.key, "up"], states[one.key, "coming"],
                states[one.key, "draining"],
            )
            for one in self._nodes.wishes
            if one.offers
        )  # fmt: skip

    def spend(self) -> tuple[float, float]:
        """(dollars an hour now, dollars since the service was created)."""
        return self._nodes.book.usd_per_hour(), self._nodes.book.usd_total(clock.wall_s())
