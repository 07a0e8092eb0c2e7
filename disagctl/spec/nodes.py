"""A YAML document as a tree that remembers its lines, and the one exception that speaks of them."""

import math
import re
from dataclasses import dataclass
from typing import Any, Final

MAX_INT: Final = 1 << 53  # what JSON carries without loss
_INT = re.compile(r"[-+]?[0-9]{1,17}")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_WORDS: Final = {"": None, "~": None, "null": None, "true": True, "false": False}
_SHOWN: Final = 60


class Problem(Exception):
    """Something is wrong at ``line``. Becomes a SpecError once the file's name is known."""

    def __init__(self, line: int, what: str, why: str = "", next: str = "") -> None:  # noqa: A002
        super().__init__(what)
        self.line, self.what, self.why, self.next = line, what, why, next


@dataclass(frozen=True, slots=True)
class Scalar:
    """A leaf. ``plain``: written without quotes, so it may be a number."""

    text: str
    plain: bool
    line: int

    @property
    def value(self) -> Any:
        """The value by the rules of YAML 1.2's core schema: ``no`` and ``12:30`` are words, not surprises."""
        return resolve(self.text, self.line) if self.plain else self.text


@dataclass(frozen=True, slots=True)
class Seq:
    """A list."""

    items: "list[Node]"
    line: int


@dataclass(frozen=True, slots=True)
class Map:
    """A mapping; keys are unique. ``lines``: where each key stands."""

    items: "dict[str, Node]"
    lines: dict[str, int]
    line: int


Node = Scalar | Seq | Map


def resolve(text: str, line: int = 1) -> Any:
    """What a word without quotes means. Raises Problem for numbers that no JSON could carry."""
    word = text.strip()
    if word.lower() in _WORDS and word in (word.lower(), word.capitalize(), word.upper()):
        return _WORDS[word.lower()]
    if _INT.fullmatch(word):
        number = int(word)
        if abs(number) <= MAX_INT:
            return number
    elif _FLOAT.fullmatch(word) and len(word) <= _SHOWN:
        real = float(word)
        if math.isfinite(real):
            return real
    else:
        return text
    raise Problem(line, f"the number {shown(word)} is too large")


def plain(node: Node) -> Any:
    """The tree as ordinary Python values."""
    match node:
        case Scalar():
            return node.value
        case Seq():
            return [plain(item) for item in node.items]
        case Map():
            return {key: plain(value) for key, value in node.items.items()}


def kind(node: Node) -> str:
    """What the node is, in words for a message."""
    match node:
        case Seq():
            return "a list"
        case Map():
            return "a mapping"
        case Scalar():
            return "nothing" if node.plain and node.value is None else shown(node.text)


def line_of(root: Node, *path: str | int) -> int:
    """The line of what stands at ``path``, or of the nearest thing around it that is written down."""
    return _walk(root, path)[1]


def node_at(root: Node, *path: str | int) -> Node:
    """What stands at ``path``, or the nearest thing around it."""
    return _walk(root, path)[0]


def _walk(node: Node, path: tuple[str | int, ...]) -> tuple[Node, int]:
    line = node.line
    for step in path:
        if isinstance(node, Map) and isinstance(step, str) and step in node.items:
            line, node = node.lines[step], node.items[step]
        elif isinstance(node, Seq) and isinstance(step, int) and step < len(node.items):
            node = node.items[step]
            line = node.line
        else:
            break
    return node, line


def shown(text: str) -> str:
    """User text, quoted, on one line and short."""
    quoted = repr(text[:_SHOWN])
    return quoted if len(text) <= _SHOWN else quoted[:-1] + "…" + quoted[-1]
