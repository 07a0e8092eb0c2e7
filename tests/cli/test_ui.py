"""The renderers, which are pure: views in, text out."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console, RenderableType

from disagctl.ui.job import progress_line
from disagctl.ui.plain import changes
from disagctl.ui.status import service_status
from disagctl.ui.tables import clean, nbytes, seconds, sparkline
from disagctl.views import EventView, HeadView, StageView, StatusView, WorkerView
from tests.cli.fake_admin import job_view


def text(what: RenderableType, width: int = 120) -> str:
    console = Console(width=width, no_color=True, highlight=False, emoji=False, markup=False)
    with console.capture() as captured:
        console.print(what)
    return captured.get()


def view(**more: object) -> StatusView:
    stages = [StageView("m", "encode", 1, 1), StageView("m", "denoise", 2, 1, busy=0.5, seconds_per_request=61.0)]
    workers = [WorkerView("n1.m.encode.0.1", "n1", "m", "encode", "ready", 1, False)]
    base = StatusView("x", "ready", "http://h", HeadView(1, "h", "0", 0.0), stages=stages, workers=workers)
    return msgspec.structs.replace(base, **more)


def test_all_columns_fit_eighty() -> None:
    lines = text(service_status(view(), now=7200.0), 80).splitlines()
    assert lines[0] == "x  ● ready  http://h  up 2h"
    assert "STAGE" in text(service_status(view(), now=0.0), 80)
    assert any(line.split()[:2] == ["denoise", "1/2"] and "1m 1s" in line for line in lines)
    assert max(map(len, lines)) <= 80


def test_a_busy_stage_fits_eighty() -> None:
    stage = StageView("m", "denoise", 16, 16, 3, 3, 9999, 16, 1.0, 12.5, 31.0)
    lines = text(service_status(view(stages=[stage]), now=0.0), 80).splitlines()
    assert sum("denoise" in line or "100 %" in line for line in lines) == 1


def test_the_feed_gives_way_on_a_low_screen() -> None:
    events = [EventView(float(i), "kind", f"why {i}", i) for i in range(20)]
    for height in (5, 16, 20, 30, 60):
        lines = text(service_status(view(events=events), now=0.0, height=height)).splitlines()
        assert len(lines) <= max(height, 14)
    assert "why 19" in text(service_status(view(events=events), now=0.0, height=30))


def test_changes_are_told_once() -> None:
    before = view(events=[EventView(1.0, "a", "first", 1)])
    assert changes(None, before) == ["x: ready — encode 1/1, denoise 1/2", "n1.m.encode.0.1: ready"]
    assert changes(before, before) == []
    busy = msgspec.structs.replace(before.workers[0], state="busy", busy=True)
    assert changes(before, msgspec.structs.replace(before, workers=[busy])) == []
    lost = msgspec.structs.replace(before.workers[0], state="lost", why="killed")
    after = view(state="degraded", workers=[lost], events=[*before.events, EventView(2.0, "b", "second", 2)])
    told = changes(before, after)
    assert told[0].startswith("x: degraded")
    assert told[1] == "n1.m.encode.0.1: lost — killed"
    assert told[2].endswith("b: second")
    assert changes(after, view(workers=[]))[1] == "n1.m.encode.0.1: gone"


def test_progress_lines() -> None:
    assert progress_line(job_view()) == "queued"
    assert progress_line(job_view(status="running", stage="encode", steps=1)) == "encode"
    assert progress_line(job_view(status="running", stage="denoise", step=3, steps=9)) == "denoise 3/9"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "–"),
        (0.004, "4 ms"),
        (3.44, "3.4 s"),
        (59.9, "59.9 s"),
        (60, "1m"),
        (320, "5m 20s"),
        (7500, "2h 5m"),
        (273600, "3d 4h"),
    ],
)
def test_seconds(value: float | None, shown: str) -> None:
    assert seconds(value) == shown


def test_small_things() -> None:
    assert sparkline([0, 1, 2, 4]) == "▁▂▄█"
    assert sparkline([0, 0]) == "▁▁"
    assert sparkline([]) == ""
    assert (nbytes(10), nbytes(3 << 20)) == ("10 B", "3.0 MiB")


@given(st.text(max_size=600))
def test_words_from_elsewhere_cannot_steer_the_terminal(words: str) -> None:
    assert clean(words).isprintable()
    workers = [WorkerView("w", "n", "m", "encode", "loading", 1, False, why=words)]
    shown = text(service_status(view(workers=workers, events=[EventView(0.0, words, words, 1)]), now=0.0))
    assert all(char.isprintable() or char == "\n" for char in shown)
