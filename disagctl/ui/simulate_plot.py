"""The timeline of a simulation: throughput, queue, workers by stage, dollars. matplotlib, where it is installed."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from disagctl.errors import UsageError
from disagctl.ui.plan_plot import INK
from planner.sim.compare import Comparison
from planner.sim.report import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS: Final = ("#c8502d", "#2f6fb0", "#3d8f5f", "#8a63b0", "#b08a2f", "#555555")
LAYERS: Final = ("#9cc4e4", "#2f6fb0", "#7fb897", "#3d8f5f", "#c9a24d", "#8a63b0") * 4
PANELS: Final = ("requests a minute", "waiting", "{name}: workers", "$ so far")
SHOWN: Final = ("dynamic", "oracle", "reactive", "predict")


def draw(made: Comparison, target: Path) -> None:
    """Write the picture. Raises UsageError when the file cannot be written."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib.figure import Figure

    mpl.rcParams["svg.hashsalt"] = "disagctl"  # the same picture is the same file
    best = made.best_static
    runs = [run for name in SHOWN if (run := made.named(name)) is not None] + ([best] if best is not None else [])
    panels = PANELS if any(run.usd for run in runs) else PANELS[:-1]
    figure = Figure(figsize=(10, 2.3 * len(panels)), dpi=120, layout="constrained")
    axes = figure.subplots(len(panels), 1, sharex=True)
    for run, colour in reversed(list(zip(runs, COLOURS, strict=False))):  # the first one on top
        _lines(axes, run, colour, bold=run is runs[0])
    _counts(axes[2], runs[0])
    for one, label in zip(axes, panels, strict=True):
        for line in made.scenario.trace.changes_s[:64]:
            one.axvline(line / 60, color=INK, linewidth=0.6, linestyle=":", alpha=0.5)
        one.set_ylabel(label.format(name=runs[0].name), color=INK)
        one.set_ylim(bottom=0)
        one.grid(alpha=0.25, linewidth=0.6)
        one.spines[["top", "right"]].set_visible(False)
    handles, labels = axes[0].get_legend_handles_labels()
    axes[0].legend(
        handles[::-1], labels[::-1], frameon=False, fontsize=8, loc="lower left", bbox_to_anchor=(0, 1), ncols=6
    )
    axes[2].legend(frameon=False, fontsize=8, loc="lower left", bbox_to_anchor=(0, 1), ncols=6)
    axes[-1].set_xlabel("minutes", color=INK)
    figure.suptitle(f"{made.scenario.trace.name}: {len(made.scenario.trace.rows)} requests", fontsize=11, color=INK)
    try:
        figure.savefig(target, metadata={"Date": None} if target.suffix.lower() == ".svg" else None)
    except OSError as err:
        raise UsageError(f"--plot: cannot write {target}", why=str(err)) from err


def _lines(axes: "Any", run: Run, colour: str, *, bold: bool) -> None:
    style = {"color": colour, "linewidth": 1.8 if bold else 1.0, "alpha": 1.0 if bold else 0.8, "label": run.name}
    width_s = max(60.0, run.end_s / 60)
    edges = [width_s * n for n in range(int(run.end_s // width_s) + 1)]
    rates = [run.between(begin, begin + width_s) * 60 / width_s for begin in edges[:-1]]
    axes[0].step([begin / 60 for begin in edges[:-1]], rates, where="post", **style)
    axes[1].plot([s.at_s / 60 for s in run.samples], [max(s.queued, 0) for s in run.samples], **style)
    if len(axes) < len(PANELS):
        return
    spent, total, last = [], 0.0, 0.0
    for sample in run.samples:
        total += sample.usd_per_hour * (sample.at_s - last) / 3600
        last = sample.at_s
        spent.append(total)
    axes[3].plot([s.at_s / 60 for s in run.samples], spent, **style)


def _counts(axes: "Axes | Any", run: Run) -> None:
    times = [sample.at_s / 60 for sample in run.samples]
    layers = [[sample.ready[index] for sample in run.samples] for index in range(len(run.roles))]
    layers.append([sample.moving for sample in run.samples])
    labels = [*(str(role) for role in run.roles), "loading or draining"]
    colours = [*LAYERS[: len(run.roles)], "#dddddd"]
    axes.stackplot(times, *layers, labels=labels, colors=colours, step="post")
