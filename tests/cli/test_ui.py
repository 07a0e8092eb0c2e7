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
from disagctl.views import EventView, HeadView, LoopView, StageView, StatusView, WorkerView
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


def test_workers_that_are_well_give_way_to_the_feed() -> None:
    workers = [WorkerView(f"n1.gpu{n}.1", "n1", "m", "denoise", "ready", 1, False, gpu=n) for n in range(16)]
    workers[7].state = "switching"
    events = [EventView(float(i), "scale", f"why {i}", i) for i in range(20)]
    full = view(workers=workers, events=events)
    low = text(service_status(full, now=0.0, height=24))
    assert [line.split()[0] for line in low.splitlines() if line.startswith("n1.")] == ["n1.gpu7.1"]
    assert "why 19" in low
    assert len(low.splitlines()) <= 24
    assert text(service_status(full, now=0.0, height=60)).count("n1.gpu") == 16


def test_gpus_are_counted_where_there_are_any() -> None:
    stages = [StageView("m", "denoise", 2, 2, running=7), StageView("m", "decode", 1, 1)]
    workers = [WorkerView(f"n{n}.gpu0.1", f"n{n}", "m", "denoise", "ready", 1, False, gpu=0) for n in (1, 2)]
    shown = text(service_status(view(stages=stages, workers=workers), now=0.0)).splitlines()
    heading = next(line for line in shown if line.startswith("STAGE"))
    row = next(line for line in shown if line.startswith("denoise"))
    assert "RUN" not in heading
    assert row[: heading.index("GPUS") + 4].split()[-1] == "2"
    assert "RUN" in text(service_status(view(), now=0.0))


def test_what_the_loop_does_and_costs() -> None:
    loop = LoopView("hybrid", {"m.denoise": 3}, {"m": 11.0}, {}, {}, 90.0, {"change": 1}, "the work has changed", 4)
    stages = [StageView("m", "denoise", 3, 3, pinned=True, slo_attainment=0.5)]
    budget = {"max_usd_per_hour": 40.0, "max_usd_total": 500.0}
    spent = view(loop=loop, stages=stages, budget=budget, usd_per_hour=20.0, usd_total=12.5, requests_per_min=3.0)
    lines = text(service_status(spent, now=0.0)).splitlines()
    assert "$20.00/h of $40.00 ████░░░░  $12.50 spent of $500.00" in lines[1]
    assert "50 % in time" in lines[1]
    assert lines[2] == "hybrid · 11.0 arrive/min · 4 switches · pinned denoise=3 · waits 1m 30s · the work has changed"
    still = view(loop=LoopView("static", why="x"))
    assert "static" not in text(service_status(still, now=0.0))
    off = view(loop=LoopView("static", off="denoise has 2 GPUs a worker"))
    assert text(service_status(off, now=0.0)).splitlines()[2] == "static: denoise has 2 GPUs a worker"


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
    spread = job_view(status="running", stage="denoise", step=3, steps=9, degree=2)
    assert progress_line(spread) == "denoise 3/9 on 2 GPUs"


def test_over_how_many_of_its_gpus_a_worker_spreads_its_task() -> None:
    workers = [
        WorkerView(f"n1.cpu{n}.1", "n1", "m", "denoise", "busy", 1, True, gpus=2, degree=degree)
        for n, degree in enumerate((None, 2))
    ]
    shown = text(service_status(view(workers=workers), now=0.0))
    assert "(0 of 2)" in shown
    assert "(2 of 2)" in shown


def test_a_worker_is_on_all_its_gpus() -> None:
    wide = WorkerView("n1.gpu4_5.1", "n1", "m", "denoise", "ready", 1, False, gpu=4, gpus=2, degree=2, on_gpus=[4, 5])
    shown = text(service_status(view(stages=[StageView("m", "denoise", 1, 1)], workers=[wide]), now=0.0)).splitlines()
    assert any("4,5 (2 of 2)" in line for line in shown)
    heading = next(line for line in shown if line.startswith("STAGE"))
    row = next(line for line in shown if line.startswith("denoise"))
    assert row[: heading.index("GPUS") + 4].split()[-1] == "2"


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
