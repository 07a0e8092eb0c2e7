"""Text to tree. Works on the parser's events, so that nothing is built, tagged or expanded that we did not ask for.

Bounds: bytes, nodes, depth and length of keys. Aliases are refused: with them a small file can be a huge document.
"""

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import yaml

from disagctl.spec.nodes import Map, Node, Problem, Scalar, Seq, shown

MAX_BYTES: Final = 1 << 20
MAX_NODES: Final = 20_000
MAX_DEPTH: Final = 24
MAX_KEY: Final = 200
# libyaml where PyYAML was built with it; only the parser is used, never a constructor.
_LOADER: Final[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read_text(path: Path) -> str:
    """The file's text. Raises Problem when it is missing, too large, no regular file or not UTF-8."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # non-blocking: opening a pipe must not hang
        with os.fdopen(fd, "rb") as file:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise Problem(1, "this is not a regular file")
            data = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as err:
        why = os.strerror(err.errno) if isinstance(err, OSError) and err.errno else str(err)
        raise Problem(1, "cannot read the spec", why, "disagctl init MODEL writes one") from err
    if len(data) > MAX_BYTES:
        raise Problem(1, "the spec is too large", f"at most {MAX_BYTES >> 20} MiB are read; put tables in CSV files")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as err:
        raise Problem(data[: err.start].count(b"\n") + 1, "the spec is not UTF-8 text") from err


def read_tree(text: str) -> Map:
    """The document's root mapping. Raises Problem."""
    try:
        root = _Builder(yaml.parse(text, Loader=_LOADER)).document()
    except yaml.MarkedYAMLError as err:
        mark = err.problem_mark or err.context_mark
        line = min(mark.line, text.count("\n", 0, -1)) + 1 if mark else 1
        raise Problem(line, "not valid YAML", _reason(err)) from err
    except (yaml.YAMLError, ValueError) as err:  # a character no YAML may hold
        line = text[: getattr(err, "position", 0) or 0].count("\n") + 1
        raise Problem(line, "not valid YAML", "it holds a character that YAML does not allow") from err
    if not isinstance(root, Map):
        raise Problem(root.line, "a spec is a mapping of keys to values", next="disagctl init MODEL writes one")
    return root


def _reason(err: yaml.MarkedYAMLError) -> str:
    reason = " ".join((err.problem or "it cannot be parsed").split())
    if err.context and err.context_mark:
        reason += f", {err.context} from line {err.context_mark.line + 1}"
    return reason if reason.isprintable() else shown(reason)


class _Builder:
    """Builds the tree from events; recursion is bounded by MAX_DEPTH."""

    def __init__(self, events: Iterator[Any]) -> None:
        self._events = events
        self._nodes = 0

    def document(self) -> Node:
        """The only document."""
        next(self._events)  # the stream begins
        if isinstance(next(self._events), yaml.StreamEndEvent):
            raise Problem(1, "the spec is empty", next="disagctl init MODEL writes one")
        root = self._node(next(self._events), 0)
        next(self._events)  # the document ends
        after = next(self._events)
        if not isinstance(after, yaml.StreamEndEvent):
            raise Problem(_line(after), "there is a second document", "a file holds one spec")
        return root

    def _node(self, event: Any, depth: int) -> Node:
        line = _line(event)
        self._nodes += 1
        if self._nodes > MAX_NODES:
            raise Problem(line, "the spec has too many entries", f"at most {MAX_NODES}")
        if depth > MAX_DEPTH:
            raise Problem(line, "the spec is nested too deeply", f"at most {MAX_DEPTH} levels")
        if isinstance(event, yaml.AliasEvent) or event.anchor is not None:
            raise Problem(line, "anchors (&) and aliases (*) are not taken", next="write the value out")
        if event.tag not in (None, "!"):  # "!" is how libyaml reports a quoted scalar
            raise Problem(line, f"tags such as {shown(event.tag)} are not taken", next="leave the tag out")
        if isinstance(event, yaml.ScalarEvent):
            return Scalar(_clean(event.value, line), event.style in (None, ""), line)
        if isinstance(event, yaml.SequenceStartEvent):
            return Seq(list(self._items(depth)), line)
        return self._mapping(line, depth)

    def _items(self, depth: int) -> Iterator[Node]:
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            yield self._node(event, depth + 1)

    def _mapping(self, line: int, depth: int) -> Map:
        items: dict[str, Node] = {}
        lines: dict[str, int] = {}
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            key = self._node(event, depth + 1)
            if not isinstance(key, Scalar) or len(key.text) > MAX_KEY:
                raise Problem(key.line, "a key must be a short word")
            if key.text in items:
                raise Problem(key.line, f"the key {shown(key.text)} is there twice", f"first in line {lines[key.text]}")
            lines[key.text] = key.line
            items[key.text] = self._node(next(self._events), depth + 1)
        return Map(items, lines, line)


def _line(event: Any) -> int:
    return int(event.start_mark.line) + 1


def _clean(text: str, line: int) -> str:
    """The text, once it is sure that it can be written to files, terminals and JSON."""
    if text.isprintable():
        return text
    for char in text:
        if (char < " " and char not in "\n\t") or "\x7f" <= char < "\xa0" or "\ud800" <= char <= "\udfff":
            raise Problem(line, f"the character {char!r} is not taken")
    return text
