"""The page that a full run writes: the machine, every figure beside its bar and peer, and two pictures."""

import os
import platform
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import psutil

from bench.figures import Figure

PICTURES: Final = "images"
BARS_AGAINST: Final = {
    "throughput_c64_vs_ray": "64 in flight",
    "http_throughput_c64_vs_ray": "64 in flight, HTTP",
    "latency_c1_vs_ray": "latency, one in flight",
    "handoff_8mib_vs_ray": "8 MiB, 8 in flight",
    "throughput_c64_vs_durable_hub": "64 in flight, durable hub",
    "latency_c1_vs_durable_hub": "latency, durable hub",
    "handoff_8mib_vs_hub": "8 MiB, bare hub",
}
SHARES: Final[tuple[str, ...]] = (
    "efficiency_161", "efficiency_161_sync", "jitter_async_kept", "jitter_sync_kept", "faults_kept", "narrow_bound",
    "wan_bound", "auto_vs_best",
)  # fmt: skip
HEAD: Final = """# Benchmarks

`make bench` wrote this page: every figure was measured in one go on this machine, each ratio beside its peer or limit in the
same run. Names ending in `_vs_` and a peer are ours over the peer's: for throughput higher is better, for latency lower.
`python -m bench --only NAME` repeats a part; the first lines of each module in `bench/` say what it does and how.
"""


def machine() -> str:
    """What it runs on, and how busy that is already."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [
            line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")
        ]
        model = names[0] if names else model
    memory_gib = psutil.virtual_memory().total / (1 << 30)
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    return (
        f"{os.cpu_count()} × {model}, {memory_gib:.0f} GiB, {platform.system()} {platform.release()}, Python"
        f" {platform.python_version()}, no GPU. Load average when it began: {load}."
    )


def write(page: Path, figures: Sequence[Figure], where: str, seconds: float, *, long: bool) -> None:
    """Write the page, and the pictures into the folder beside it."""
    folder = page.parent / PICTURES
    folder.mkdir(parents=True, exist_ok=True)
    lasted = f"Loads lasted {seconds:g} s or a small multiple of that"
    lasted += "; efficiency ten minutes, overload five." if long else "."
    lines = [HEAD, f"{time.strftime('%d %B %Y')}. {where} {lasted}", ""]
    for name, title in _draw(folder, {figure.figure: figure for figure in figures}):
        lines += [f"![{title}]({PICTURES}/{name})", ""]
    lines += ["| figure | value | bar | peer or limit | its value | met |", "|---|---|---|---|---|---|"]
    lines += [_row(figure) for figure in figures]
    page.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _row(figure: Figure) -> str:
    bar = "–" if figure.bar is None else f"{'≥' if figure.better == 'higher' else '≤'} {figure.bar:.3g}"
    peer = "–" if figure.peer_value is None else f"{figure.peer_value:g}"
    met = "–" if figure.bar is None else "yes" if figure.met else "**no**"
    return f"| `{figure.figure}` | {figure.value:g} {figure.unit} | {bar} | {figure.peer or '–'} | {peer} | {met} |"


def _draw(folder: Path, figures: dict[str, Figure]) -> Iterator[tuple[str, str]]:
    """(file, title) of each picture that there are figures for."""
    import matplotlib as mpl

    mpl.use("Agg")
    against = {title: figures[name] for name, title in BARS_AGAINST.items() if name in figures}
    if against:
        title = "Ours over the peer's, and the bar"
        yield _bars(folder / "bench-peers.png", title, against, log=True)
    shares = {name: figures[name] for name in SHARES if name in figures}
    if shares:
        yield _bars(folder / "bench-shares.png", "Share of the limit or clean rate, and the bar", shares, log=False)


def _bars(path: Path, title: str, rows: dict[str, Figure], *, log: bool) -> tuple[str, str]:
    from matplotlib import pyplot

    axes: Any
    figure, axes = pyplot.subplots(figsize=(8, 0.5 * len(rows) + 1.2), layout="constrained")
    for place, row in enumerate(rows.values()):
        axes.barh(place, row.value, color="#4c78a8")
        axes.text(row.value, place, f" {row.value:.3g}", va="center")
        if row.bar is not None:
            axes.plot([row.bar, row.bar], [place - 0.4, place + 0.4], color="#e45756", linewidth=2)
    axes.set_yticks(range(len(rows)), list(rows))
    axes.invert_yaxis()
    axes.margins(x=0.12)
    if log:
        axes.set_xscale("log")
        axes.axvline(1, color="grey", linewidth=0.8)
    axes.set_title(title)
    figure.savefig(path, dpi=110, metadata={"Software": None})
    pyplot.close(figure)
    return path.name, title
