"""How tensors travel between workers, as far as the head knows: what was used, what offers need. State only; no sockets."""

from collections import Counter
from collections.abc import Iterator
from typing import Final

from disagctl.roster import Roster
from stages.protocol import Knock, Neighbour, Reach, Via

MAX_PAIRS: Final = 2_000  # shown; with more workers than that has pairs, the first ones are
ONE_HOST: Final = Reach((), several=False)  # what a worker goes by until it is told otherwise
INLINE: Final = Via("inline", "small: it rides in the message")


class Routes:
    """Lives beside the roster, which says who is where."""

    def __init__(self, roster: Roster) -> None:
        self._roster = roster
        self.relay = False  # whether the service has a store to go through
        self.used_pairs: dict[tuple[str, str], Via] = {}  # (producer, consumer) → the last transfer's way
        self.notes: dict[str, str] = {}  # node → what it cannot do although the spec asks for it
        self._told: dict[str, Reach] = {}
        self._walled: set[str] = set()

    def joined(self, worker: str) -> None:
        """The worker is new, or may have forgotten what it was told."""
        self._told.pop(worker, None)

    def left(self, worker: str) -> None:
        """The worker is gone."""
        self._told.pop(worker, None)
        self._walled.discard(worker)
        for pair in [pair for pair in self.used_pairs if worker in pair]:
            del self.used_pairs[pair]

    def used(self, source: str, target: str, via: Via | None) -> None:
        """An input came that way; None: in the message."""
        pair = (source, target)
        if via is None:
            self.used_pairs.setdefault(pair, INLINE)
        elif pair in self.used_pairs or len(self.used_pairs) < MAX_PAIRS:
            self.used_pairs[pair] = via

    def introduce(self, node: str) -> Iterator[tuple[str, Knock]]:
        """What to tell whom, so that a node and the others find out whether they reach each other."""
        bells = {n.id: Neighbour(n.id, n.doorbell) for n in self._roster.nodes.values() if n.doorbell}
        if node in bells:
            others = {name: bell for name, bell in bells.items() if name != node}
            yield from ((name, Knock((bells[node],))) for name in others)
            yield node, Knock(tuple(others.values()))

    def cut_off(self, source: str) -> bool:
        """Somebody cannot reach this worker. True when that is news, and there is a store to go through instead."""
        if not self.relay or source in self._walled or source not in self._roster.workers:
            return False
        self._walled.add(source)
        return True

    def news(self) -> Iterator[tuple[str, Reach]]:
        """What to tell whom: workers for which it differs from what they were told last."""
        hosts = {node.id: node.host for node in self._roster.nodes.values()}
        greeted = [worker for worker in self._roster.workers.values() if worker.greeted]
        per_host = Counter(hosts[worker.node] for worker in greeted if worker.node in hosts)
        several = len(per_host) > 1
        shared = tuple(sorted(host for host, count in per_host.items() if count > 1)) if several else ()
        for worker in greeted:
            reach = Reach(shared, several, worker.id in self._walled)
            if self._told.get(worker.id, ONE_HOST) != reach:
                self._told[worker.id] = reach
                yield worker.id, reach
