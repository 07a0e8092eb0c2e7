"""The table and the pictures of ``python -m bench.coserve --write``."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from bench.coserve_runs import Outcome, baselines, workload
from bench.figures import Figure

HEAD: Final = """# Figures of co-serving

`python -m bench.coserve --full --keep FILE --write docs` wrote this page: {runs} simulated runs on held-out seeds, with the
workloads, objectives and baselines of `bench/workloads`. [Co-serving](coserving.md) says what is compared. Where several seeds
ran, a row is their mean. Only points that the policy and all its baselines have run are here:

| workload | GPUs | loads | SLO × | seeds | points | of |
|---|---|---|---|---|---|---|
"""


def write(folder: Path, found: Sequence[Outcome], figures: Sequence[Figure]) -> None:
    """The page and one picture a workload."""
    keys = sorted({(one.point.workload, one.point.gpus) for one in found})
    lines = [HEAD.format(runs=len(found)) + "\n".join(_coverage(found, *key) for key in keys), ""]
    lines += ["| figure | value | bar | against |", "|---|---|---|---|", *map(_row, figures)]
    names = [one.name for one in baselines()]
    for key in keys:
        mine = [one for one in found if (one.point.workload, one.point.gpus) == key]
        lines += ["", f"## {key[0]}, {key[1]} GPUs", ""]
        if any(one.contender == "genserve" for one in mine):
            _picture(folder / "images" / f"coserve-{key[0]}-{key[1]}.png", mine, names)
            lines += [f"![attainment by load](images/coserve-{key[0]}-{key[1]}.png)", "", *_table(mine, names)]
        else:
            lines += [*_ratios(mine), "", *_table(mine, names)]
    (folder / "coserving-figures.md").write_text("\n".join(lines) + "\n")


def _row(figure: Figure) -> str:
    sign = "≥" if figure.better == "higher" else "≤"
    bar = "" if figure.bar is None else f"{sign} {figure.bar:g}{'' if figure.met else ' **missed**'}"
    against = figure.peer or ""
    if figure.peer is not None and figure.peer_value is not None:
        against += f" ({figure.peer_value:g})"
    return f"| {figure.figure} | {figure.value:g} {figure.unit} | {bar} | {against} |"


def _coverage(found: Sequence[Outcome], name: str, gpus: int) -> str:
    ran = {one.point for one in found if (one.point.workload, one.point.gpus) == (name, gpus)}
    work = workload(name)
    latency = not any(one.contender == "genserve" for one in found if one.point in ran)
    seeds = work.seeds.held_out if latency or gpus == work.gpus[0] else work.seeds.held_out[:1]
    every = len(work.loads) * len(seeds) * (1 if latency else len(work.slo_scales))

    def listed(values: set[float] | set[int]) -> str:
        return ", ".join(f"{value:g}" for value in sorted(values))

    loads, scales, chosen = {p.load for p in ran}, {p.scale for p in ran}, {p.seed for p in ran}
    row = (name, str(gpus), listed(loads), listed(scales), listed(chosen), str(len(ran)), str(every))
    return f"| {' | '.join(row)} |"


def _ratios(found: Sequence[Outcome]) -> list[str]:
    """Every load and seed: how many times longer whole pipelines take, on one GPU each and at the degree that is best there."""
    lines = [
        "| load | seed | mean: whole-1 | best whole | P95: whole-1 | best whole |",
        "|---|---|---|---|---|---|",
    ]
    whole = {one.name for one in baselines() if one.layout == "whole"}
    for point in sorted({one.point for one in found}, key=lambda one: (one.load, one.seed)):
        here = {one.contender: one for one in found if one.point == point}
        mine, alone = here["trident"], here["whole-1 fifo"]
        able = [one for name, one in here.items() if name in whole and not one.unserved]
        mean, p95 = (min(getattr(one, field) for one in able) for field in ("mean_s", "p95_s"))
        lines.append(
            f"| {point.load:g} | {point.seed} | {alone.mean_s / mine.mean_s:.2f} | {mean / mine.mean_s:.2f} |"
            f" {alone.p95_s / mine.p95_s:.2f} | {p95 / mine.p95_s:.2f} |"
        )
    return lines


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
    figure, panels = plt.subplots(1, len(scales), figsize=(3.2 * len(scales), 3.0), sharey=True, squeeze=False)
    for panel, scale in zip(panels[0], scales, strict=True):
        here = [one for one in found if one.point.scale == scale]
        _panel(panel, here, sorted({one.point.load for one in here}), names)
        panel.set_title(f"SLO {scale:g} × isolated", fontsize=9)
        panel.set_xlabel("load")
    panels[0][0].set_ylabel("on time")
    fullest = max(panels[0], key=lambda panel: len(panel.get_lines()))
    fullest.legend(fontsize=6, loc="lower left")
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
