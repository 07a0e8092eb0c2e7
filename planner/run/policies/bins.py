"""A node's GPUs while they are given out: what runs keeps, changes or loses its GPUs; who waits goes where it adds most."""

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from planner.run.orders import Job, Running
from planner.run.policies.floor import Node
from planner.run.policies.knapsack import Knapsack, Option

NEVER: Final = float("inf")


class Choice(msgspec.Struct):
    """One group of the knapsack: a running task, or requests that wait. ``batches``: by tag, which start together.

    ``takes``: seconds until what waits is finished, by tag; ``step_s``: of one step, by GPUs (empty: waiting for GPUs
    is not weighed).
    ``has``, ``boundary_s``: the GPUs of what runs, and until its step is over.
    """

    options: list[Option]
    task: Running | None = None
    batches: list[list[list[Job]]] = []
    jobs: Sequence[Job] = ()
    takes: list[float] = []
    step_s: Mapping[int, float] = {}
    has: int = 0
    boundary_s: float = 0.0

    @property
    def movable(self) -> bool:
        """Whether it can be paused."""
        return self.options[0].size == 0

    def add(self, gpus: int, value: float, batches: list[list[Job]], takes_s: float) -> None:
        """One more option of what waits."""
        self.batches.append(batches)
        self.takes.append(takes_s)
        self.options.append(Option(gpus, value, len(self.batches) - 1))


class Bin:
    """One node. ``coming``: of tasks that are changing already, GPUs that they have, will have, and seconds until then."""

    def __init__(self, node: Node, coming: Sequence[tuple[int, int, float]], running: Sequence[Choice]) -> None:
        self.node, self.running = node, running
        self.waiting: list[Choice] = []
        self._coming = _coming(node, coming, running)
        fixed = 0
        self._groups: list[list[Option]] = []
        for choice in running:
            least = min(one.size for one in choice.options)
            fixed += least
            self._groups.append([Option(one.size - least, one.value, one.size) for one in choice.options])
        held_back = sum(kept for _, kept, _ in coming)
        self._sack = Knapsack(max(node.gpus - held_back - fixed, 0))
        for options in self._groups:
            self._sack.add(options)

    def offer(self, choice: Choice) -> tuple[float, Option | None]:
        """What starting it here would add, and as which option. GPUs that are yet to be free are worth the less to it."""
        options = self._here(choice)
        if len(options) == 1:
            return 0.0, None
        gain, option = self._sack.offer(options)
        if option is not None and choice.step_s and option.size > self.node.idle:
            takes = choice.takes[option.tag]
            gain *= takes / (takes + self.soon_s(option.size))
        return gain, option

    def add(self, choice: Choice) -> None:
        """It waits for GPUs of this node."""
        options = self._here(choice)
        self.waiting.append(choice)
        self._groups.append(options)
        self._sack.add(options)

    def chosen(self) -> list[Option]:
        """For those that run, by their tag, then for those that wait."""
        return self._sack.chosen()

    def without(self, index: int) -> float:
        """What the others would gain had the running task of this index no GPUs."""
        rest = Knapsack(self._sack.capacity)
        for options in self._groups[:index] + self._groups[index + 1 :]:
            rest.add(options)
        return rest.value - self._sack.value

    def soon_s(self, gpus: int) -> float:
        """Until so many could be free, were those with the least to gain from theirs to give them up."""
        return next((after_s for count, after_s in self._coming if count >= gpus), NEVER)

    def _here(self, choice: Choice) -> list[Option]:
        """The options that GPUs with the weights allow."""
        holders = self.node.holders.get(choice.jobs[0].role, 0)
        return [one for one in choice.options if one.size <= holders]


def _coming(
    node: Node, changing: Sequence[tuple[int, int, float]], running: Sequence[Choice]
) -> list[tuple[int, float]]:
    """(GPUs that are or could be free, seconds until then), more and more."""
    rows = [(0.0, had - kept, after_s) for had, kept, after_s in changing if had > kept]
    for choice in running:
        value = next(one.value for one in choice.options if one.size == choice.has)
        rows.append((value / max(choice.has, 1), choice.has - choice.options[0].size, choice.boundary_s))
    free, wait_s = node.idle, 0.0
    found = [(free, wait_s)]
    for _, gpus, after_s in sorted(rows):
        free, wait_s = free + gpus, max(wait_s, after_s)
        found.append((free, wait_s))
    return found


def put_down(choice: Choice, bins: Sequence[Bin]) -> tuple[Bin, Option] | None:
    """The node where it adds most, and as which option; of equal ones that with fewest idle GPUs. None: nowhere."""
    found: tuple[Bin, Option] | None = None
    most, fit = 0.0, 0
    for one in bins:
        value, option = one.offer(choice)
        if option is not None and (value > most + 1e-9 or (value > most - 1e-9 and one.node.idle < fit)):
            found, most, fit = (one, option), value, one.node.idle
    return found
