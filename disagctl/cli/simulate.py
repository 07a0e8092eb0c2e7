"""disagctl simulate: what the control loop would make of a trace, and what else could have been made of it. Rents nothing."""

import contextlib
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from disagctl.cli.options import Output, SpecFile
from disagctl.errors import UsageError

if TYPE_CHECKING:
    from disagctl.simulation.setup import Setup
    from planner.sim.compare import Comparison

DEFAULT = "dynamic,reactive,predict,static,oracle"


def simulate(  # noqa: PLR0913, PLR0917  # one parameter an option
    spec: SpecFile,
    trace: Annotated[
        str,
        typer.Option("--trace", metavar="CSV|NAME", help="Requests: a log, or a generator (paper, flips, mixes …)."),
    ],
    catalog: Annotated[
        str | None, typer.Option("--catalog", metavar="CSV", help="Prices: a file, `sky`, or `shipped`.")
    ] = None,
    profiles: Annotated[str | None, typer.Option("--profiles", metavar="CSV", help="Timings of the models.")] = None,
    policy: Annotated[
        str,
        typer.Option(
            "--policy", metavar="NAME[,…]", help="dynamic, reactive, predict, static, static:1:6:1 …, oracle."
        ),
    ] = DEFAULT,
    workers: Annotated[
        int | None,
        typer.Option(
            "--workers", min=1, max=4096, metavar="N", help="Instead of as many as the plan, or the spec, has."
        ),
    ] = None,
    elastic: Annotated[
        bool, typer.Option("--elastic", help="Let dynamic, reactive and predict rent and release nodes (no oracle).")
    ] = False,
    seed: Annotated[int, typer.Option("--seed", help="Of generated traces and of noise.")] = 1,
    noise: Annotated[
        float, typer.Option("--noise", min=0.0, max=1.0, help="Spread of service and load times (sigma of their log).")
    ] = 0.0,
    plot: Annotated[Path | None, typer.Option("--plot", metavar="FILE", help="The timeline: a .png or .svg.")] = None,
    write_trace: Annotated[
        Path | None, typer.Option("--write-trace", metavar="FILE", help="Write the trace as a CSV.")
    ] = None,
    infra: Annotated[str | None, typer.Option("--infra", metavar="INFRA[,…]", help="Instead of the spec's.")] = None,
    budget: Annotated[
        float | None, typer.Option("--budget", metavar="USD_PER_H", help="Instead of the spec's.")
    ] = None,
    output: Output = "table",
) -> None:
    """Try the control loop on a trace, in virtual time, against every static ratio and an oracle. Rents nothing."""
    from disagctl.cli.wish import load
    from disagctl.simulation.setup import Wish, set_up
    from planner.sim.scenario import Noise

    if plot is not None:
        from disagctl.ui.plan_plot import check_target

        check_target(plot)
    names = _policies(policy)
    service = load(spec, infra, budget, catalog)
    imperfect = Noise(service_sigma=noise, load_sigma=noise, launch_sigma=noise)
    made = set_up(service, Wish(spec, trace, profiles, workers, seed, imperfect, elastic))
    if write_trace is not None:
        _write(made, write_trace)
    found = _run(made, names)
    _show(service.name, made, found, output)
    if plot is not None:
        from disagctl.cli.output import say
        from disagctl.ui.simulate_plot import draw

        draw(found, plot)
        say(f"wrote {plot}")


def _policies(text: str) -> list[str]:
    from planner.sim.compare import POLICIES

    names = ["dynamic" if name.strip() == "hybrid" else name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        ratio = name.removeprefix("static:")
        fixed = name.startswith("static:") and all(part.isdigit() and int(part) > 0 for part in ratio.split(":"))
        if name not in (*POLICIES, "static", "oracle") and not fixed:
            raise UsageError(
                f"--policy: there is no {name[:40]!r}", why=f"there are {', '.join(POLICIES)}, static, oracle, and ratios",
                next="a ratio names workers by stage, e.g. static:1:6:1",
            )  # fmt: skip
    return names


def _run(made: "Setup", names: list[str]) -> "Comparison":
    from disagctl.cli.output import console, is_terminal, say
    from disagctl.simulation.renting import SimulatedMarket
    from disagctl.simulation.timed import Stopwatch
    from planner.sim.compare import compare

    roles = len(made.scenario.roles)
    for name in names:
        if name.startswith("static:") and len(name.split(":")) - 1 != roles:
            raise UsageError(
                f"--policy: {name} names {len(name.split(':')) - 1} stages",
                why=f"there are {roles}: {', '.join(map(str, made.scenario.roles))}",
            )
    watch = Stopwatch()
    market = SimulatedMarket(made.request) if made.request is not None else None
    begun = time.perf_counter()
    shown: contextlib.AbstractContextManager[Any] = (
        console(err=True).status("simulating") if is_terminal(err=True) else contextlib.nullcontext()
    )
    with shown as spinner:
        found = compare(
            made.scenario,
            names,
            watch.tools(solver=market.answer if market is not None else None),
            lambda name: spinner.update(f"simulating {name}") if spinner else None,
        )
    spent = time.perf_counter() - begun
    say(f"{found.simulated_s / 3600:.1f} h simulated in {spent:.1f} s; {watch.summary()}")
    return found


def _show(name: str, made: "Setup", found: "Comparison", output: str) -> None:
    from disagctl.cli import output as out

    if output == "json":
        from disagctl.simulation.document import document

        out.document(document(name, found, made.warnings))
    else:
        from disagctl.ui.simulate import simulation_picture

        out.show(simulation_picture(name, found, made.warnings))


def _write(made: "Setup", target: Path) -> None:
    from disagctl.cli.output import say
    from disagctl.simulation.traces import as_csv

    try:
        target.write_text(as_csv(made.scenario.trace), encoding="utf-8")
    except OSError as err:
        raise UsageError(f"--write-trace: cannot write {target}", why=str(err)) from err
    say(f"wrote {target}")
