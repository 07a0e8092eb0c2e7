"""disagctl plan: the cheapest mix of GPUs for a spec, with its reasons. Rents nothing."""

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from disagctl.cli.options import Output, SpecFile
from disagctl.errors import InfeasibleError

if TYPE_CHECKING:
    from disagctl.planning.document import PlanView
    from disagctl.planning.gather import Inputs
    from disagctl.planning.plan_file import SavedPlan
    from disagctl.planning.protocol import Point
    from disagctl.spec import Spec

PLOT_S = 20.0  # for the solves behind a plot, beside the plan's own


def plan(  # noqa: PLR0913, PLR0917  # one parameter an option
    spec: SpecFile,
    catalog: Annotated[
        str | None, typer.Option("--catalog", metavar="CSV[,…]", help="Prices: files, `sky`, `shipped`.")
    ] = None,
    profiles: Annotated[str | None, typer.Option("--profiles", metavar="CSV", help="Timings of the models.")] = None,
    explain: Annotated[
        tuple[str, str] | None, typer.Option("--explain", metavar="STAGE GPU", help="Why not this GPU for this stage?")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option("--plot", metavar="FILE", help="Cost against p95 and against rate: a .png or .svg.")
    ] = None,
    infra: Annotated[str | None, typer.Option("--infra", metavar="INFRA[,…]", help="Instead of the spec's.")] = None,
    budget: Annotated[
        float | None, typer.Option("--budget", metavar="USD_PER_H", help="Instead of the spec's.")
    ] = None,
    before: Annotated[
        Path | None,
        typer.Option("--from", metavar="FILE", help="Plan onwards from this plan (plan -o json), which runs already."),
    ] = None,
    time_limit: Annotated[
        float, typer.Option("--time-limit", min=0.1, max=3600, metavar="SECONDS", help="For solving.")
    ] = 30.0,
    output: Output = "table",
) -> None:
    """Show the cheapest mix of GPUs per stage that serves the load, and why. Rents nothing."""
    from disagctl.cli.wish import load
    from disagctl.planning import local

    if plot is not None:
        from disagctl.ui.plan_plot import check_target

        check_target(plot)
    wish = load(spec, infra, budget, catalog)
    if local.applies(wish):
        _show_local(wish, output)
        return
    inputs = _gather(wish, spec, profiles, _running(wish, before), output)
    view, points = _solve(inputs, explain, time_limit, output, sweep=plot is not None)
    _show(view, points, output)
    if plot is not None:
        _draw(view, points, plot)


def _running(wish: "Spec", before: Path | None) -> "SavedPlan | None":
    """The plan that runs: the named file's, or that of the live service of this name."""
    from disagctl.planning.plan_file import kept, read_plan
    from disagctl.state import paths

    if before is not None:
        return read_plan(before)
    where = paths(wish.name)
    return kept(where.root) if where.record.exists() else None


def _gather(wish: "Spec", spec: Path, profiles: str | None, before: "SavedPlan | None", output: str) -> "Inputs":
    from disagctl.cli.output import document
    from disagctl.planning.gather import gather

    try:
        return gather(wish, spec, profiles=profiles, before=before)
    except InfeasibleError as err:
        if output == "json":
            from disagctl.planning.document import refusal

            document(refusal(wish.name, f"{err.what}: {err.why}", kind=err.error_code, relaxation=err.next))
        raise


def _solve(
    inputs: "Inputs", explain: tuple[str, str] | None, limit_s: float, output: str, *, sweep: bool
) -> "tuple[PlanView, list[Point]]":
    """Raises InfeasibleError or OverBudgetError where there is no plan; with -o json the document says so as well."""
    from disagctl.cli.output import document
    from disagctl.planning.deploy import refused
    from disagctl.planning.document import no_plan, plan_view, planned
    from disagctl.planning.question import question
    from disagctl.planning.solver_process import solve
    from disagctl.planning.sweep import job_of
    from planner.plan import Infeasible

    asked = question(inputs, *explain) if explain else None
    answer = solve(job_of(inputs.request, limit_s, asked, sweep_s=PLOT_S if sweep else 0.0), waiting=spinner)
    made = planned(answer)
    if isinstance(made, Infeasible):
        if output == "json":
            document(no_plan(inputs.spec.name, made))
        raise refused(made)
    return plan_view(inputs, made, answer.explanation), answer.sweep


def _show(view: "PlanView", points: "list[Point]", output: str) -> None:
    from disagctl.cli import output as out

    if output == "json":
        from disagctl.planning.document import document

        out.document(document(view, points))
    else:
        from disagctl.ui.plan import plan_picture

        out.show(plan_picture(view))


def _show_local(wish: "Spec", output: str) -> None:
    from disagctl.cli import output as out
    from disagctl.planning import local

    made = local.plan(wish)
    if output == "json":
        out.document(made)
    else:
        from disagctl.ui.plan_local import local_picture

        out.show(local_picture(made))


def _draw(view: "PlanView", points: "list[Point]", target: Path) -> None:
    from disagctl.cli.output import say
    from disagctl.ui.plan_plot import draw

    draw(view, points, target)
    say(f"wrote {target}")


def spinner() -> "contextlib.AbstractContextManager[object]":
    """Shown on a terminal while the solver is at work."""
    from disagctl.cli.output import console, is_terminal

    return (
        console(err=True).status("looking for the cheapest plan") if is_terminal(err=True) else contextlib.nullcontext()
    )
