"""Choose one option of each group so that the sizes fit and the values add up to the most: the multiple-choice knapsack, by
dynamic programming over the capacity (Kellerer, Pferschy, Pisinger, Knapsack Problems, 2004, chapter 11). Exact."""

from collections.abc import Sequence

import msgspec


class Option(msgspec.Struct, frozen=True):
    """``size``: GPUs; ``value``: what it is worth, in any unit that adds up; ``tag``: the caller's."""

    size: int
    value: float
    tag: int = 0


def choose(groups: Sequence[Sequence[Option]], capacity: int) -> list[Option]:
    """One option a group, in order. Each group must have an option of size 0.

    Groups whose smallest option is above 0 have to be settled by the caller (their size taken off the capacity) beforehand.
    """
    best = [0.0] * (capacity + 1)  # capacity used at most → value
    picks: list[list[Option]] = []
    for options in groups:
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
        best = after
        picks.append(pick)
    found: list[Option] = []
    left = capacity
    for pick in reversed(picks):
        found.append(pick[left])
        left -= pick[left].size
    return found[::-1]
