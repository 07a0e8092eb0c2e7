"""Reading a user's tables: bounded, and every complaint begins with file:line."""

import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from disagctl.errors import SpecError
from disagctl.spec.nodes import Map, Problem, line_of
from disagctl.spec.yaml_reader import read_text, read_tree
from planner.domain import Defect

MAX_BYTES: Final = 64 << 20
SHOWN: Final = 3


def read_csv(path: Path, what: str) -> str:
    """The file's text. Raises SpecError when it is missing, no regular file, too large or not UTF-8."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        with os.fdopen(fd, "rb") as file:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise SpecError(f"{path}:1: this is not a regular file", code=f"{what}_invalid")
            data = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as err:
        why = os.strerror(err.errno) if isinstance(err, OSError) and err.errno else str(err)
        raise SpecError(f"{path}:1: cannot read the {what}", why=why, code=f"{what}_invalid") from err
    if len(data) > MAX_BYTES:
        raise SpecError(f"{path}:1: the {what} is larger than {MAX_BYTES >> 20} MiB", code=f"{what}_invalid")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as err:
        line = data[: err.start].count(b"\n") + 1
        raise SpecError(f"{path}:{line}: the {what} is not UTF-8 text", code=f"{what}_invalid") from err


def refuse_fatal(defects: Iterable[Defect], code: str) -> None:
    """Raise SpecError for the first fatal defect; the rest are counted."""
    fatal = [defect for defect in defects if defect.fatal]
    if not fatal:
        return
    others = "; ".join(f"{defect.where}: {defect.message}" for defect in fatal[1:SHOWN])
    more = f" (and {len(fatal) - SHOWN} more)" if len(fatal) > SHOWN else ""
    raise SpecError(f"{fatal[0].where}: {fatal[0].message}", why=f"{others}{more}", code=code)


class Lines:
    """Where a spec's keys stand, for complaints that come after it was loaded."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._tree: Map | None = read_tree(read_text(path))
        except Problem:
            self._tree = None

    def at(self, *keys: str | int) -> str:
        """``service.yaml:7``, of the key or of the nearest thing around it."""
        if self._tree is None:
            return f"{self._path}:1"
        keys = ("model", *keys[2:]) if keys[:1] == ("models",) and "model" in self._tree.items else keys
        return f"{self._path}:{line_of(self._tree, *keys)}"
