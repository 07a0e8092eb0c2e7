"""Small pieces the renderers share: tables, bars, sparklines, numbers with units. No I/O."""

from collections.abc import Iterable, Sequence
from typing import Final

from rich import box
from rich.table import Table
from rich.text import Text

from disagctl.views import StatusView

STATE_STYLES: Final = {
    "ready": "green", "busy": "bold green", "up": "green", "succeeded": "green",
    "starting": "yellow", "loading": "yellow", "switching": "yellow", "launching": "yellow", "requested": "yellow",
    "running": "cyan", "queued": "default",
    "draining": "magenta", "stopping": "magenta", "releasing": "magenta", "cancelled": "magenta",
    "degraded": "bold yellow", "failed": "bold red", "lost": "bold red", "head_down": "bold red", "gone": "dim",
}  # fmt: skip
_EIGHTHS: Final = "▁▂▃▄▅▆▇█"
NOTHING: Final = "–"


def clean(text: str, limit: int = 400) -> str:
    """Words that came from elsewhere, safe for a terminal and on one line."""
    return "".join(char if char.isprintable() else " " for char in text[:limit])


def state(name: str) -> Text:
    """A state in its colour."""
    return Text(name, style=STATE_STYLES.get(name, "default"))


def table(*columns: str, right: Iterable[str] = (), title: str | None = None) -> Table:
    """A table without frames. ``right``: columns of numbers."""
    numbers = set(right)
    made = Table(
        box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="bold", title=title, title_justify="left"
    )
    for column in columns:
        made.add_column(column, justify="right" if column in numbers else "left", no_wrap=column in numbers)
    return made


def bar(share: float, width: int = 8) -> Text:
    """``share`` of a whole, as a bar."""
    filled = round(max(0.0, min(1.0, share)) * width)
    return Text("█" * filled + "░" * (width - filled), style="cyan")


def sparkline(values: Sequence[float], width: int = 24) -> str:
    """The last ``width`` values, each a little column."""
    recent = list(values)[-width:]
    top = max(recent, default=0.0)
    if top <= 0:
        return _EIGHTHS[0] * len(recent)
    return "".join(_EIGHTHS[min(7, int(value / top * 7.999))] for value in recent)


def seconds(value: float | None) -> str:
    """A duration for people: 12 ms, 3.4 s, 5m 20s, 2h 5m, 3d 4h."""
    if value is None:
        return NOTHING
    if value < 1:
        return f"{value * 1000:.0f} ms"
    if value < 60:
        return f"{value:.1f} s"
    whole = round(value)
    for big, small, names in ((86400, 3600, "dh"), (3600, 60, "hm"), (60, 1, "ms")):
        if whole >= big:
            rest = whole % big // small
            return f"{whole // big}{names[0]}" + (f" {rest}{names[1]}" if rest else "")
    return f"{whole} s"


def nbytes(value: int) -> str:
    """A size for people."""
    size = float(value)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


def percent(share: float | None) -> str:
    """A fraction as percent."""
    return NOTHING if share is None else f"{share * 100:.0f} %"


def services(views: Iterable[StatusView]) -> Table:
    """All services, one a row."""
    made = table(
        "NAME",
        "STATE",
        "READY",
        "QUEUED",
        "RUNNING",
        "DONE",
        "$/H",
        "ENDPOINT",
        right=("READY", "QUEUED", "RUNNING", "DONE", "$/H"),
    )
    for view in views:
        ready = f"{sum(stage.ready for stage in view.stages)}/{sum(stage.desired for stage in view.stages)}"
        counts = view.requests
        numbers = (ready, str(counts.queued), str(counts.running), str(counts.succeeded), f"{view.usd_per_hour:.2f}")
        made.add_row(view.name, state(view.state), *numbers, view.endpoint)
    return made
