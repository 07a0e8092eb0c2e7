"""Choose one option of each group so that the sizes fit and the values add up to the most: the multiple-choice knapsack, by
dynamic programming over the capacity (Kellerer, Pferschy, Pisinger, Knapsack Problems, 2004, chapter 11). Exact."""

from collections.abc import Sequence

import msgspec


class Option(msgspec.Struct, frozen=True):
    """``size``: GPUs; ``value``: what it is worth, in any unit that adds up; ``tag``: the caller's."""

    size: int
    value: float
    tag: int = 0


class Knapsack:
    """Groups are added one after another. Each must have an option of size 0.

    Groups whose smallest option is above 0 have to be settled by the caller (their size taken off the capacity) beforehand.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._best = [0.0] * (capacity + 1)  # capacity used at most → value
        self._picks: list[list[Option]] = []

    @property
    def value(self) -> float:
        """Of the best choice."""
        return self._best[self.capacity]

    def add(self, options: Sequence[Option]) -> None:
        """One more group."""
        capacity, best = self.capacity, self._best
        nothing = max((one for one in options if one.size == 0), key=lambda one: one.value)
        after = [value + nothing.value for value in best]
        pick = [nothing] * (capacity + 1)
        for option in options:
            size, value = option.size, option.value
            if size == 0 or size > capacity:
                continue
            for used in range(size, capacity + 1):
                total = best[used - size] + value
                if total > after[used] + 1e-12:
                    after[used] = total
                    pick[used] = option
        self._best = after
        self._picks.append(pick)

    def offer(self, options: Sequence[Option]) -> tuple[float, Option | None]:
        """What a group would add to its nothing, and the option that would be chosen; (0, None): nothing would."""
        capacity, best = self.capacity, self._best
        least = max(one.value for one in options if one.size == 0) + best[capacity]
        most, found = least + 1e-12, None
        for option in options:
            if 0 < option.size <= capacity and best[capacity - option.size] + option.value > most:
                most, found = best[capacity - option.size] + option.value, option
        return (most - least if found is not None else 0.0), found

    def chosen(self) -> list[Option]:
        """One option a group, in order."""
        found: list[Option] = []
        left = self.capacity
        for pick in reversed(self._picks):
            found.append(pick[left])
            left -= pick[left].size
        return found[::-1]


def choose(groups: Sequence[Sequence[Option]], capacity: int) -> list[Option]:
    """One option a group, in order."""
    sack = Knapsack(capacity)
    for options in groups:
        sack.add(options)
    return sack.chosen()
