"""What a person sees, in 100 columns."""

import io

import msgspec
import pytest
from rich.console import Console

from disagctl.planning.document import PlanView, document
from disagctl.ui.plan import plan_picture
from planner.plan import Alternative, Explanation
from tests.planning.samples import WHOLE, sample

PICTURE = """\
wan-shop  $128.79/h of $160.00 ██████░░  $178.88 per 1000 requests
carries 12 requests/min (room for 14.4)  ·  p95 2m 51s of 3m
prices: the shipped snapshot of 2026-09-25, the oldest used from 2025 · optimal in 0.4 s

STAGE          NODES × OFFER                     REPL  S/REQ  BUSY   FREE     $/H  $/1000  SECONDS FROM
"""


def view(plan: object = None, **changes: object) -> PlanView:
    made = PlanView(
        name="wan-shop", plan=plan or sample(), prices="the shipped snapshot of 2026-09-25", oldest="2025", ages=["57 d", "?"],  # type: ignore[arg-type]
        budget=160.0, warnings=["prices as old as 2025: look at today's before you rent (--catalog)"], whole=[],
        stages={"wan": ("encode", "denoise", "decode")}, usable_gib={},
    )  # fmt: skip
    for key, value in changes.items():
        setattr(made, key, value)
    return made


def drawn(made: PlanView, width: int = 100) -> str:
    out = io.StringIO()
    Console(file=out, width=width, highlight=False, markup=False, color_system=None).print(plan_picture(made))
    return out.getvalue()


def test_everything_that_must_be_there() -> None:
    text = drawn(view())
    assert text.splitlines()[:3] == PICTURE.splitlines()[:3]
    rows = [line for line in text.splitlines() if "10 × H100:8 spot" in line or "1 × RTX4090:2" in line]
    assert len(rows) == 2
    for part in ("denoise", "10", "37.5", "75 %", "51 G", "128.00", "177.78", "estimated ±89 %"):
        assert part in rows[0]
    for part in ("encode+decode", "6.43", "64 %", "0.4 G", "0.79", "published ±12 %"):
        assert part in rows[1]
    for part in (
        "price 57 d old",
        "price undated",
        "vast/BritishColumbia",
        "whole pipeline, one GPU type",
        "+9 %",
        "denoise does not fit",
    ):
        assert part in text


@pytest.mark.parametrize("width", [80, 100, 120])
def test_no_line_is_too_long(width: int) -> None:
    assert max(len(line) for line in drawn(view(), width).splitlines()) <= width


def test_nothing_is_cut_off_in_100_columns() -> None:
    assert "…" not in drawn(view())


def test_advice_not_to_split() -> None:
    text = drawn(view(sample(WHOLE), ages=["1 y"], whole=["wan"]))
    assert "whole pipeline" in text
    assert "advice  do not split wan" in text


def test_advice_where_splitting_hardly_wins() -> None:
    assert "advice" not in drawn(view())
    near = Alternative("whole pipeline, one GPU type", 130.0, True, "costs +0.9%", 170.0)
    text = drawn(view(msgspec.structs.replace(sample(), alternatives=(near,))))
    assert "advice  splitting saves 0.9% here: whole pipelines on each GPU cost $130.00/h" in text


def test_hostile_names_stay_on_their_line() -> None:
    text = drawn(view(prices="a\x1b[31m\nb", explanation=Explanation("x\ny", "H100", False, "z\x07", ("f\r",))))
    assert "\x1b" not in text
    assert "\x07" not in text


def test_the_document_has_what_the_table_has() -> None:
    made = document(view())
    assert made["rows"][0]["price_age"] == "57 d"
    assert made["prices"] == {"from": "the shipped snapshot of 2026-09-25", "oldest": "2025"}
    assert made["schema_version"] == 1
    assert made["warnings"]
