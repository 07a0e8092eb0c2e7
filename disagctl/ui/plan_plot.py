"""Two curves beside a plan: what it costs at other loads, and at other objectives. matplotlib, where it is installed."""

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from disagctl.errors import UsageError
from disagctl.planning.document import PlanView
from disagctl.planning.protocol import Point
from disagctl.ui.tables import seconds

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SUFFIXES: Final = (".png", ".svg")
INK, LINE, HERE = "#333333", "#2f6fb0", "#c8502d"


def check_target(target: Path) -> None:
    """Raise UsageError before anything is solved for a picture that could not be written."""
    if target.suffix.lower() not in SUFFIXES:
        raise UsageError(f"--plot cannot write {target.name!r}", why=f"it writes {' and '.join(SUFFIXES)}")
    if not target.absolute().parent.is_dir():
        raise UsageError(f"--plot: there is no folder {target.parent}")
    if importlib.util.find_spec("matplotlib") is None:
        raise UsageError(
            "--plot needs matplotlib",
            why="it is not installed",
            next="pip install 'disagctl[plot]'",
            code="plot_missing",
        )


def draw(view: PlanView, points: Sequence[Point], target: Path) -> None:
    """Write the picture. Raises UsageError when the file cannot be written."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    mpl.rcParams["svg.hashsalt"] = "disagctl"  # the same picture is the same file
    figure = Figure(figsize=(10, 4.2), dpi=120, layout="constrained")
    left, right = figure.subplots(1, 2)
    _panel(left, _by_objective(view, points), "promised p95", "no plan at this objective")
    left.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 1.2, 3, 6, 10]))  # whole minutes
    left.xaxis.set_major_formatter(lambda value, _: seconds(value))
    _panel(right, _by_rate(view, points), "requests a minute", "no plan at this load")
    budget = view.budget
    for axes in (left, right):
        if budget:
            axes.axhline(budget, color=INK, linewidth=0.8, linestyle=":")
            axes.annotate(
                "budget",
                (0.99, budget),
                xycoords=("axes fraction", "data"),
                ha="right",
                va="bottom",
                fontsize=8,
                color=INK,
            )
    figure.suptitle(f"{view.name}: the cheapest plan, ${view.plan.usd_per_hour:.2f}/h now", fontsize=11, color=INK)
    try:
        figure.savefig(target, metadata={"Date": None} if target.suffix.lower() == ".svg" else None)
    except OSError as err:
        raise UsageError(f"--plot: cannot write {target}", why=str(err)) from err


Curve = list[tuple[float, float | None, bool]]  # (x, $/h, whether it is the plan itself)


def _by_objective(view: PlanView, points: Sequence[Point]) -> Curve:
    """Against the tightest promise; where nothing was promised, the plan alone at the p95 it has."""
    promised = min((one.slo_p95_s for one in view.plan.classes if one.slo_p95_s), default=None)
    if promised is None:
        return [(view.plan.p95_s, view.plan.usd_per_hour, True)]
    found = [
        (promised * p.slo_factor, p.usd_per_hour, False) for p in points if p.rate_factor == 1 and p.slo_factor != 1
    ]
    return sorted([*found, (promised, view.plan.usd_per_hour, True)])


def _by_rate(view: PlanView, points: Sequence[Point]) -> Curve:
    now = view.plan.throughput_per_min
    found = [(now * p.rate_factor, p.usd_per_hour, False) for p in points if p.slo_factor == 1 and p.rate_factor != 1]
    return sorted([*found, (now, view.plan.usd_per_hour, True)])


def _panel(axes: "Axes | Any", curve: Curve, label: str, missing: str) -> None:
    known = [(x, usd) for x, usd, _ in curve if usd is not None]
    axes.plot([x for x, _ in known], [usd for _, usd in known], "o-", color=LINE, linewidth=1.6, markersize=4)
    here = [(x, usd) for x, usd, now in curve if now and usd is not None]
    axes.plot([x for x, _ in here], [usd for _, usd in here], "o", color=HERE, markersize=8, label="this plan")
    absent = [x for x, usd, _ in curve if usd is None]
    if absent:
        axes.plot(absent, [0] * len(absent), "x", color=INK, markersize=6, label=missing, clip_on=False)
    axes.set_xlabel(label, color=INK)
    axes.set_ylabel("$ an hour", color=INK)
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8, loc="best")
