"""The table and the pictures of ``python -m bench.coserve --write``."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from bench.coserve_runs import Outcome, baselines
from bench.figures import Figure

HEAD: Final = """# Figures of co-serving

`python -m bench.coserve{flags} --write docs` wrote this page: {runs} simulated runs on held-out seeds, with the workloads,
objectives and baselines of `bench/workloads`. [Co-serving](coserving.md) says what is compared.

"""


def write(folder: Path, found: Sequence[Outcome], figures: Sequence[Figure]) -> None:
    """The page and one picture a workload."""
    full = len({one.point.seed for one in found}) > 1
    lines = [
        HEAD.format(flags=" --full" if full else "", runs=len(found)),
        "| figure | value | bar | against |",
        "|---|---|---|---|",
    ]
    for figure in figures:
        bar = (
            ""
            if figure.bar is None
            else f"{'≥' if figure.better == 'higher' else '≤'} {figure.bar:g}{'' if figure.met else ' **missed**'}"
        )
        against = (
            ""
            if figure.peer is None
            else f"{figure.peer}" + ("" if figure.peer_value is None else f" ({figure.peer_value:g})")
        )
        lines.append(f"| {figure.figure} | {figure.value:g} {figure.unit} | {bar} | {against} |")
    names = [one.name for one in baselines()]
    for key in sorted({(one.point.workload, one.point.gpus) for one in found}):
        mine = [one for one in found if (one.point.workload, one.point.gpus) == key]
        lines += ["", f"## {key[0]}, {key[1]} GPUs", "", *_table(mine, names)]
        if any(one.contender == "genserve" for one in mine):
            _picture(folder / "images" / f"coserve-{key[0]}-{key[1]}.png", mine, names)
            lines += ["", f"![attainment by load](images/coserve-{key[0]}-{key[1]}.png)"]
    (folder / "coserving-figures.md").write_text("\n".join(lines) + "\n")


def _mean(rows: Sequence[Outcome], field: str) -> float:
    return sum(getattr(one, field) for one in rows) / len(rows)


def _table(found: Sequence[Outcome], names: Sequence[str]) -> list[str]:
    """The three strongest baselines of each point, and all of ours."""
    lines = [
        "| load | SLO × | who | on time | images | videos | mean s | p95 s | pauses (most) | loads |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    latency = not any(one.contender == "genserve" for one in found)
    for load, scale in sorted({(one.point.load, one.point.scale) for one in found}):
        here: dict[str, list[Outcome]] = {}
        for one in found:
            if (one.point.load, one.point.scale) == (load, scale):
                here.setdefault(one.contender, []).append(one)
        order = sorted(
            here, key=lambda name: _mean(here[name], "mean_s") if latency else -_mean(here[name], "attained")
        )
        strongest = [name for name in order if name in names][:3]
        for name in order:
            if name in strongest or name not in names or name == "whole-1 fifo":
                rows = here[name]
                most = max(one.most_pauses for one in rows)
                lines.append(
                    f"| {load:g} | {scale:g} | {name} | {_mean(rows, 'attained'):.3f} | {_mean(rows, 'images'):.2f} |"
                    f" {_mean(rows, 'videos'):.2f} | {_mean(rows, 'mean_s'):.1f} | {_mean(rows, 'p95_s'):.1f} |"
                    f" {_mean(rows, 'pauses'):.0f} ({most}) | {_mean(rows, 'loads'):.0f} |"
                )
    return lines


def _picture(path: Path, found: Sequence[Outcome], names: Sequence[str]) -> None:
    """On time by load, one panel an SLO scale: ours, without each mechanism, and the strongest baseline of each point."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    path.parent.mkdir(parents=True, exist_ok=True)
    scales = sorted({one.point.scale for one in found})
    loads = sorted({one.point.load for one in found})
    figure, panels = plt.subplots(1, len(scales), figsize=(3.2 * len(scales), 3.0), sharey=True, squeeze=False)
    for panel, scale in zip(panels[0], scales, strict=True):
        _panel(panel, [one for one in found if one.point.scale == scale], loads, names)
        panel.set_title(f"SLO {scale:g} × isolated", fontsize=9)
        panel.set_xlabel("load")
    panels[0][0].set_ylabel("on time")
    panels[0][-1].legend(fontsize=6, loc="lower left")
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _panel(panel: Any, found: Sequence[Outcome], loads: Sequence[float], names: Sequence[str]) -> None:
    def attained(name: str, load: float) -> float | None:
        rows = [one for one in found if one.contender == name and one.point.load == load]
        return _mean(rows, "attained") if rows else None

    for name in sorted({one.contender for one in found if one.contender not in names}):
        rows = [(load, value) for load in loads if (value := attained(name, load)) is not None]
        panel.plot(
            *zip(*rows, strict=True),
            marker="o",
            lw=2 if name == "genserve" else 1,
            ls="-" if name == "genserve" else ":",
            label=name,
        )
    best = [max(value for name in names if (value := attained(name, load)) is not None) for load in loads]
    panel.plot(loads, best, color="black", marker="s", ls="--", label="strongest that cannot pause")
    panel.set_ylim(0, 1.03)
