"""CSV text into rows with line numbers, and numbers out of cells with reasons. Nothing here raises on bad input."""

import csv
import io
import math
from collections.abc import Iterator, Mapping, Sequence

import msgspec

from planner.domain import Defect

MAX_ROWS = 1_000_000
LEAST, MOST = 1e-9, 1e12  # beyond: a slip of the pen, and no solver could reckon with it


class Cells(msgspec.Struct, frozen=True):
    """One row. ``where``: file:line, for messages."""

    where: str
    values: Mapping[str, str]

    def text(self, column: str) -> str:
        """The cell, stripped; "" when it is empty or the column is absent."""
        return self.values.get(column, "")


class BadCell(ValueError):
    """A cell that is not what its column asks for; the message says which."""


def read(text: str, name: str, required: Sequence[str]) -> tuple[list[Cells], list[Defect]]:
    """Rows, and the fatal defects of the file as a whole: no header, missing columns, ragged rows."""
    lines = csv.reader(io.StringIO(text.removeprefix("\ufeff"), newline=""))
    rows: list[Cells] = []
    defects: list[Defect] = []
    header: list[str] | None = None
    try:
        for cells in lines:
            where = f"{name}:{lines.line_num}"
            if not any(cell.strip() for cell in cells) or cells[0].lstrip().startswith("#"):
                continue
            if header is None:
                header = [cell.strip().lower() for cell in cells]
                defects.extend(_header_defects(header, where, required))
                if defects:
                    return [], defects
            elif len(cells) > len(header):
                defects.append(Defect(where, f"{len(cells)} cells under {len(header)} columns", fatal=True))
            elif len(rows) >= MAX_ROWS:
                return rows, [*defects, Defect(where, f"more than {MAX_ROWS} rows", fatal=True)]
            else:
                rows.append(Cells(where, {key: cell.strip() for key, cell in zip(header, cells, strict=False)}))
    except csv.Error as error:
        defects.append(Defect(f"{name}:{lines.line_num}", f"not CSV: {error}", fatal=True))
    if header is None:
        defects.append(Defect(f"{name}:1", f"empty: expected a header with {', '.join(required)}", fatal=True))
    return rows, defects


def _header_defects(header: list[str], where: str, required: Sequence[str]) -> Iterator[Defect]:
    missing = [column for column in required if column not in header]
    other = next((sign for sign in ";\t|" if sign in header[0]), None) if len(header) == 1 and missing else None
    if other is not None:
        yield Defect(where, f"columns are separated by {other!r}: this wants commas", fatal=True)
    elif missing:
        yield Defect(where, f"missing column{'s' if len(missing) > 1 else ''} {', '.join(missing)}", fatal=True)
    twice = sorted({column for column in header if column and header.count(column) > 1})
    if twice:
        yield Defect(where, f"column {', '.join(twice)} stands there twice", fatal=True)


def number(
    row: Cells, column: str, *, default: float | None = None, above: float | None = None, least: float | None = None
) -> float:
    """A finite number from a cell; empty: the default, or BadCell when there is none."""
    text = row.text(column)
    if not text:
        if default is None:
            raise BadCell(f"{column} is empty")
        return default
    try:
        value = float(text)
    except ValueError:
        raise BadCell(f"{column}: {text!r} is not a number") from None
    if not math.isfinite(value):
        raise BadCell(f"{column}: {text[:40]} is not a finite number")
    if abs(value) > MOST or 0 < abs(value) < LEAST:
        raise BadCell(f"{column}: {text[:40]} cannot be meant: numbers are from {LEAST:g} to {MOST:g}")
    if above is not None and not value > above:
        raise BadCell(f"{column}: {text} must be above {above:g}")
    if least is not None and not value >= least:
        raise BadCell(f"{column}: {text} must be at least {least:g}")
    return value


def whole(row: Cells, column: str, *, default: int | None = None, least: int = 0) -> int:
    """A whole number from a cell."""
    value = number(row, column, default=default, least=least)
    if value != int(value):
        raise BadCell(f"{column}: {row.text(column)} is not a whole number")
    return int(value)


def word(row: Cells, column: str) -> str:
    """Text that must be there."""
    text = row.text(column)
    if not text:
        raise BadCell(f"{column} is empty")
    return text
