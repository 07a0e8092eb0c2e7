"""The log files of a service: finding them, reading their ends, following them as they grow, shrink and appear."""

import os
import re
import zlib
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final

from disagctl.errors import UsageError
from disagctl.spec.suggest import did_you_mean

HEAD: Final = "head"
TAIL_BYTES: Final = 4 << 20  # furthest back that --tail looks
CHUNK_BYTES: Final = 1 << 20
MAX_LINE: Final = 4000
_STYLES: Final = ("cyan", "green", "yellow", "magenta", "blue", "bright_cyan", "bright_green", "bright_magenta")
_ROLE: Final = re.compile(rb"(?m) stages\.pipeline: becoming (\S+)$")  # a worker's log, from here on in this role
_ESCAPES: Final = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b[@-_]")


class Source:
    """One file. ``<node>.<slot>.log`` is a worker's, ``<node>.log`` an agent's, ``head.log`` the head's.

    ``stage``: show only what a worker wrote while it had that role; its log says when it takes one.
    """

    def __init__(self, path: Path, stage: str | None = None) -> None:
        self.path = path
        self.node, _, self.slot = path.name.removesuffix(".log").partition(".")
        self._stage = stage
        self._mine = stage is None
        self._position: int | None = None
        self._rest = b""

    def roles(self) -> set[str]:
        """Every role that the worker has had, as far as the log goes back."""
        try:
            return {role.decode("utf-8", "replace") for role in _ROLE.findall(self.path.read_bytes())}
        except FileNotFoundError:
            return set()

    def name(self, *, several: bool) -> str:
        """Short, but telling."""
        return f"{self.node}.{self.slot}" if several and self.slot else self.slot or self.node

    def lines(self, tail: int, *, last: bool) -> Iterator[str]:
        """What was written since the last call; at first the last ``tail`` lines. ``last``: also a line not ended yet."""
        if self._position is not None or self._stage is None:
            yield from self._new(tail, last=last)
        else:
            self._position = 0  # of all that it wrote, what it wrote in that role
            yield from deque(self._new(tail, last=last), tail)

    def _new(self, tail: int, *, last: bool) -> Iterator[str]:
        try:
            with self.path.open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                if self._position is None:
                    self._position = _start_of_tail(file, size, tail)
                elif size < self._position:  # copied aside and begun anew
                    self._position, self._rest = 0, b""
                file.seek(self._position)
                while chunk := file.read(CHUNK_BYTES):
                    self._position = file.tell()
                    yield from self._split(chunk)
        except FileNotFoundError:
            return
        if last and self._rest and self._mine:
            yield readable(self._rest)

    def _split(self, chunk: bytes) -> Iterator[str]:
        *whole, self._rest = (self._rest + chunk).split(b"\n")
        self._rest = self._rest[-CHUNK_BYTES:]
        for line in whole:
            if self._stage is not None and (role := _ROLE.search(line + b"\n")) is not None:
                self._mine = is_stage(self._stage, role[1].decode("utf-8", "replace"))
            if self._mine:
                yield readable(line)


class Reader:
    """All sources of a service, also those that appear while we read."""

    def __init__(self, folder: Path, stage: str | None, tail: int) -> None:
        self._folder, self._stage, self._tail = folder, stage, tail
        self._sources: dict[str, Source] = {}
        self._several = False
        self.width = 0
        self._look()
        known = {role for source in self._sources.values() for role in source.roles()} if stage is not None else set()
        if stage is not None and not any(is_stage(stage, role) for role in known):
            stages = sorted({role.rpartition(".")[2] for role in known})
            raise UsageError(f"no worker of stage {stage!r} has written a log", why=did_you_mean(stage, stages))

    def lines(self, *, last: bool) -> Iterator[tuple[str, str]]:
        """(source, line) of everything new."""
        self._look()
        for source in self._sources.values():
            name = source.name(several=self._several)
            for line in source.lines(self._tail, last=last):
                yield name, line

    def _look(self) -> None:
        """Take in files that are new. The head comes first, then agents, then workers."""
        found = [Source(path, self._stage) for path in sorted(self._folder.glob("*.log"))]
        wanted = [source for source in found if self._stage is None or source.slot]
        for source in sorted(wanted, key=lambda s: (s.path.name != f"{HEAD}.log", bool(s.slot), s.path.name)):
            self._sources.setdefault(source.path.name, source)
        self._several = len({source.node for source in self._sources.values() if source.slot}) > 1
        self.width = max((len(source.name(several=self._several)) for source in self._sources.values()), default=0)


def is_stage(wanted: str, role: str) -> bool:
    """Whether ``--stage`` means this role: by its stage, or with its model before it."""
    return wanted in (role, role.rpartition(".")[2])


def style_of(source: str) -> str:
    """Always the same colour for the same source."""
    return "bold" if source == HEAD else _STYLES[zlib.crc32(source.encode()) % len(_STYLES)]


def _start_of_tail(file: BinaryIO, size: int, lines: int) -> int:
    """Where the last ``lines`` lines begin."""
    if lines == 0:
        return size
    start = max(0, size - TAIL_BYTES)
    file.seek(start)
    end = file.read(size - start)
    at = len(end) - 1 if end.endswith(b"\n") else len(end)
    for _ in range(lines):
        at = end.rfind(b"\n", 0, at)
        if at < 0:
            return start
    return start + at + 1


def readable(line: bytes) -> str:
    """One line without colours and other orders to the terminal; of a progress bar what it showed last."""
    text = line.decode("utf-8", "replace").rstrip("\r").rpartition("\r")[2]
    text = _ESCAPES.sub("", text).replace("\t", "    ")
    return "".join(char if char.isprintable() else "�" for char in text[:MAX_LINE])
