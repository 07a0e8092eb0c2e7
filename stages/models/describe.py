"""``python -m stages.models.describe``: a model's card, made by its adapter in a process of its own.

The head and the CLI never import an engine. What another package's adapter says of a model they ask here: a ModelSource in
JSON on stdin, a ModelCard in JSON on stdout; or on stderr why there is none, with exit status 1.
"""

import os
import sys
from pathlib import Path

import msgspec

from stages.models.base import ModelError
from stages.models.registry import choose
from stages.protocol import ModelSource


def main() -> int:
    """Entry point."""
    source = msgspec.json.decode(sys.stdin.buffer.read(), type=ModelSource)
    answer = os.dup(1)
    os.dup2(2, 1)  # whatever an engine prints while it is imported is no part of the answer
    folder = Path(source.id)
    try:
        card = choose(source).card(source, folder if folder.is_absolute() else None)
    except ModelError as err:
        print(err, file=sys.stderr)  # noqa: T201  # this is the interface
        return 1
    os.write(answer, msgspec.json.encode(card))
    return 0


if __name__ == "__main__":
    sys.exit(main())
