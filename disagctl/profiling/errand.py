"""What a rented node runs: ``disagctl profile`` there, and the rows on its output, from where they are fetched.

``python -m disagctl.profiling.errand FILE``; the file is an Errand as JSON.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

MARK: Final = "disagctl-profile-result: "
SAID_CHARS: Final = 2000
SLICE: Final = 2000  # characters a line: some log readers cut longer ones
RUN: Final = "import sys; from disagctl.cli.main import main; sys.argv[0] = 'disagctl'; main()"


class Errand(msgspec.Struct, frozen=True):
    """``argv``: what follows ``disagctl profile``, without the file. ``limit_s``: for all of it."""

    argv: tuple[str, ...]
    limit_s: float


class Result(msgspec.Struct, frozen=True):
    """``code``: its exit code, 124 when the time was over. ``rows``: the profiles file. ``said``: the end of what it said."""

    code: int
    rows: str
    said: str


def main() -> None:
    """Measure, print."""
    errand = msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=Errand)
    for line in lines_of(run(errand)):
        sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def run(errand: Errand) -> Result:
    """The command, in a process of its own that does not outlive its time."""
    with tempfile.TemporaryDirectory(prefix="disagctl-errand-") as folder:
        rows = Path(folder) / "profiles.csv"
        command = [sys.executable, "-c", RUN, "profile", *errand.argv, "-f", str(rows)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=errand.limit_s, check=False)
            code, said = done.returncode, done.stderr
        except subprocess.TimeoutExpired:
            code, said = 124, f"the {errand.limit_s:.0f} s for it are over"
        return Result(code, rows.read_text(encoding="utf-8") if rows.exists() else "", said[-SAID_CHARS:])


def lines_of(result: Result) -> list[str]:
    """The result as marked lines ``k/n``, each short enough for any log."""
    text = json.dumps(msgspec.to_builtins(result))  # in ASCII: logs are not all UTF-8
    parts = [text[at : at + SLICE] for at in range(0, len(text), SLICE)]
    return [f"{MARK}{n}/{len(parts)} {part}" for n, part in enumerate(parts, 1)]


def result_in(lines: Sequence[str]) -> Result | None:
    """The result among a log's lines, once all of it is there. Raises msgspec.DecodeError for a damaged one."""
    parts: dict[int, str] = {}
    count = 0
    for line in lines:
        _, mark, rest = line.partition(MARK)
        place, _, part = rest.partition(" ")
        number, _, of = place.partition("/")
        if mark and number.isdecimal() and of.isdecimal():
            parts[int(number)], count = part, int(of)
    if not count or any(n not in parts for n in range(1, count + 1)):
        return None
    return msgspec.json.decode("".join(parts[n] for n in range(1, count + 1)), type=Result)


if __name__ == "__main__":
    main()
