"""The profiles file: measured rows take the place of earlier ones with the same key, all else stays as it is."""

import csv
import io
import os
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from disagctl.errors import SpecError, UsageError
from planner.domain import Profile

COLUMNS: Final = (
    "model", "stage", "gpu", "width", "height", "frames", "steps", "seconds", "peak_gib", "source",
    "gpus", "precision", "batch", "weights_gib", "load_s", "error", "guidance", "origin",
)  # fmt: skip
KEY: Final = (
    "model", "stage", "gpu", "width", "height", "frames", "steps", "source", "gpus", "precision", "batch", "guidance",
)  # fmt: skip
_DEFAULTS: Final = {"gpus": "1", "precision": "bf16", "batch": "1", "guidance": "no"}
_YES: Final = {"1": "yes", "true": "yes", "yes": "yes", "0": "no", "false": "no", "no": "no"}
MAX_BYTES: Final = 64 << 20


def as_row(profile: Profile) -> dict[str, str]:
    """A profile as a row's cells."""
    shape = profile.shape
    cells: dict[str, object] = {
        "model": profile.model, "stage": profile.stage, "gpu": profile.gpu, "width": shape.width, "height": shape.height,
        "frames": shape.frames, "steps": shape.steps, "seconds": _short(profile.seconds), "peak_gib": _short(profile.peak_gib),
        "source": profile.source, "gpus": profile.gpus, "precision": profile.precision, "batch": profile.batch,
        "weights_gib": _short(profile.weights_gib), "load_s": _short(profile.load_s), "error": _short(profile.error),
        "guidance": "yes" if shape.guidance else "no", "origin": profile.origin,
    }  # fmt: skip
    return {name: str(value) for name, value in cells.items()}


def merge(text: str, rows: Iterable[Mapping[str, str]], name: str) -> str:
    """The file's text with ``rows`` in place of those with the same key, new ones at the end.

    Columns, comments in columns of the user's own and the order of rows are kept. Raises SpecError for what is no table.
    """
    reader = csv.DictReader(io.StringIO(text, newline=""), restkey="", restval="")
    columns = list(reader.fieldnames or COLUMNS)
    lacking = [column for column in COLUMNS[:10] if column not in columns]
    if lacking or "" in columns:
        what = f"the columns {', '.join(lacking)} are missing" if lacking else "a column has no name"
        raise SpecError(f"{name}:1: this is not a profiles file", why=what, code="profiles_invalid")
    columns += [column for column in COLUMNS if column not in columns]
    kept: dict[tuple[str, ...], dict[str, str]] = {}
    try:
        for row in reader:
            if row.get(""):
                raise SpecError(f"{name}:{reader.line_num}: more cells than columns", code="profiles_invalid")
            kept[_key(row, reader.line_num)] = row
    except csv.Error as err:
        raise SpecError(f"{name}:{reader.line_num}: {err}", code="profiles_invalid") from err
    for fresh in rows:
        key = _key(fresh)
        kept[key] = kept.get(key, {}) | dict(fresh)
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, columns, restval="", lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    writer.writerows(kept.values())
    return out.getvalue()


def check(path: Path) -> None:
    """Raise what :func:`write` would, before anything is measured."""
    target = path.resolve()
    if not target.parent.is_dir():
        raise UsageError(f"there is no folder {path.parent}", next="make it, or name another place with -f")
    merge(_read(target), [], str(path))


def write(path: Path, rows: Iterable[Mapping[str, str]]) -> None:
    """Merge ``rows`` into the file in one step: whoever reads it sees the old or the new, never a part."""
    target = path.resolve()
    try:
        text = _read(target)
        merged = merge(text, rows, str(path))
        mode = target.stat().st_mode & 0o777 if target.exists() else 0o644
        fd, scratch = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        try:
            with os.fdopen(fd, "w", encoding="utf-8", newline="") as file:
                file.write(merged)
                file.flush()
                os.fchmod(file.fileno(), mode)
                os.fsync(file.fileno())
            os.replace(scratch, target)  # noqa: PTH105
        except BaseException:
            Path(scratch).unlink(missing_ok=True)
            raise
    except OSError as err:
        raise UsageError(f"cannot write {path}", why=str(err.strerror)) from err


def _read(path: Path) -> str:
    if not path.exists():
        return ""
    if not path.is_file() or path.stat().st_size > MAX_BYTES:
        raise SpecError(f"{path}:1: this is not a profiles file", code="profiles_invalid")
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as err:
        raise SpecError(f"{path}:1: this is not UTF-8 text", code="profiles_invalid") from err


def _key(row: Mapping[str, str], line: int | None = None) -> tuple[str, ...]:
    """What makes a row the same as another; a blank line, and one that is nothing we know, is like no other."""
    cells = [(row.get(name) or "").strip() or _DEFAULTS.get(name, "") for name in KEY]
    cells[-1] = _YES.get(cells[-1].lower(), cells[-1])
    return tuple(cells) if line is None or row.get("source") == "measured" else (*cells, str(line))


def _short(value: float | None) -> str:
    """Six significant digits, never in scientific notation."""
    if value is None:
        return ""
    text = f"{value:.6g}"
    return text if "e" not in text else f"{value:.9f}".rstrip("0").rstrip(".")
