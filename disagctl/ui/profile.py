"""What `disagctl profile` found, as tables. No I/O."""

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from disagctl.profiling.fit import Law
from disagctl.profiling.outcome import Moment, Outcome
from disagctl.ui.tables import NOTHING, percent, seconds, table
from planner.domain import Profile


def moment_line(moment: Moment) -> str:
    """Where the work is, in a line."""
    if moment.shape is None:
        return f"{moment.device}: loading {moment.stage}"
    text = f"{moment.device}: {moment.stage} {moment.shape}"
    if moment.seconds is not None:
        return f"{text}: {seconds(moment.seconds)}"
    if moment.progress is None or moment.progress.run == 0:
        return f"{text}: warming up"
    return f"{text}: run {moment.progress.run}, step {moment.progress.done}/{moment.progress.total}"


def outcome(found: Outcome) -> RenderableType:
    """The rows, then each stage's law, then what was left out."""
    parts: list[RenderableType] = [_rows(found.rows), Text(), _laws(found.laws)]
    parts += [Text(f"left out: {one.stage} {one.shape}: {one.why}", style="yellow") for one in found.skipped]
    return Group(*parts)


def _rows(rows: Sequence[Profile]) -> RenderableType:
    numbers = ("SECONDS", "±", "PEAK GiB", "WEIGHTS GiB", "LOAD")
    made = table("STAGE", "GPU", "SHAPE", "PRECISION", *numbers, right=numbers)
    for row in rows:
        made.add_row(
            row.stage, row.gpu, str(row.shape), row.precision, f"{row.seconds:.4g}", percent(row.error), f"{row.peak_gib:.3g}",
            NOTHING if row.weights_gib is None else f"{row.weights_gib:.3g}", seconds(row.load_s),
        )  # fmt: skip
    return made


def _laws(laws: Sequence[Law]) -> RenderableType:
    made = table("STAGE", "LAW (SECONDS)", "SHARE OF PEAK", "RESIDUAL", right=("RESIDUAL",))
    for law in laws:
        terms = " + ".join(
            f"{value:.3g}" if name == "fixed" else f"{value:.3g}·{name}" for name, value in law.terms.items() if value
        )
        shares = ", ".join(f"{name.removesuffix('_pflop')} {percent(share)}" for name, share in law.efficiency.items())
        made.add_row(law.stage, terms, shares or NOTHING, percent(law.residual))
    return made
