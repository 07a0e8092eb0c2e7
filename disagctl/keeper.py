"""The rented machines as the control loop sees them: how many GPUs of which type are there, come, or are about to go."""

from collections import Counter
from collections.abc import Sequence
from typing import Final

from disagctl import clock
from disagctl.nodes import Nodes
from disagctl.roster import Roster
from disagctl.store.rows import NodeRow
from planner.plan import Running
from planner.run.fleet import NodeWish
from planner.run.observe import Lapse, NodeCount, Observer, Room

COMING: Final = frozenset({"requested", "launching"})
NO_CAPACITY: Final = frozenset({"no_capacity", "impossible", "quota"})


class RentedMachines:
    """A :class:`disagctl.controller.NodeKeeper`. Tells ``observer`` how long launches took."""

    def __init__(self, nodes: Nodes, roster: Roster, observer: Observer) -> None:
        self._nodes, self._roster, self._observer = nodes, roster, observer
        self._awaited: set[str] = set()  # whose launch this head has seen from its begin

    async def wish(self, wishes: Sequence[NodeWish], why: str) -> None:
        """Have these nodes: launch what is missing, drain and release the rest."""
        await self._nodes.wish(wishes, why)

    def rooms(self) -> tuple[Room, ...]:
        """Workers that the nodes hold, by type of GPU."""
        up: Counter[str] = Counter()
        coming: Counter[str] = Counter()
        for row in self._nodes.open:
            rented = self._roster.rented.get(row.id)
            if rented is None:
                continue
            if self._there(row):
                up[rented.actual] += len(self._roster.nodes[row.id].gpus) or rented.count
                if row.id in self._awaited:
                    self._awaited.discard(row.id)
                    self._observer.lapse(Lapse("launch", clock.wall_s() - row.created_at, offer=row.wish))
            elif row.state in COMING or row.state == "up":
                coming[rented.actual] += rented.count
                if row.state in COMING and row.public_key is None:
                    self._awaited.add(row.id)
        return tuple(Room(name, up[name], coming[name]) for name in sorted({*up, *coming}))

    def counts(self) -> tuple[NodeCount, ...]:
        """Nodes of each wish, and of those that were wished for before as long as they are there."""
        wished = {wish.key: wish for wish in self._nodes.wishes}
        there: dict[str, list[NodeRow]] = {key: [] for key in wished}
        for row in self._nodes.open:
            there.setdefault(row.wish, []).append(row)
        found: list[NodeCount] = []
        for key, rows in there.items():
            offers = wished[key].offers if key in wished else self._nodes.book.offers(rows[0])
            if offers:
                up = sum(self._there(row) for row in rows)
                coming = sum(not self._there(row) and row.state in {*COMING, "up"} for row in rows)
                leaving = sum(row.state == "draining" for row in rows)
                count = wished[key].count if key in wished else 0
                found.append(NodeCount(key, offers[0], count, up, coming, leaving, offers))
        return tuple(found)

    def spend(self) -> tuple[float, float]:
        """(dollars an hour now, dollars since the service was created)."""
        rows = [row for row in self._nodes.open if row.billed_from is not None]
        return sum(row.usd_per_hour for row in rows), self._nodes.book.usd_total(clock.wall_s())

    def running(self) -> tuple[Running, ...]:
        """What is there or comes."""
        return tuple(Running(one.offer, one.up + one.coming) for one in self.counts() if one.up + one.coming)

    def without(self) -> frozenset[str]:
        """Offers, by name, that could not be had lately."""
        troubles = self._nodes.troubles.items()
        return frozenset(key for key, trouble in troubles if trouble.kind in NO_CAPACITY)

    def _there(self, row: NodeRow) -> bool:
        known = self._roster.nodes.get(row.id)
        return row.state == "up" and known is not None and known.greeted
