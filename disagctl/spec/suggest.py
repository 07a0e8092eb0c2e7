"""Did you mean …?"""

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Final

_LONGEST: Final = 64  # comparing is quadratic


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """``did you mean 'x'?``, or the list of what there is when nothing is near and the list is short."""
    names = list(known)
    folded = {name.casefold().replace("-", "_"): name for name in names}
    asked = word[:_LONGEST].casefold().replace("-", "_")
    near = get_close_matches(asked, folded, n=1, cutoff=0.6)
    if near:
        return f"did you mean {folded[near[0]]!r}?"
    return f"known here: {', '.join(names)}" if names and len(names) <= 24 else ""
