"""disagctl profile: measure a model's stages."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from disagctl.cli.options import Output, Yes

if TYPE_CHECKING:
    from disagctl.profiling.devices import Device
    from disagctl.profiling.models import Subject
    from disagctl.profiling.outcome import Moment, Options, Outcome

MODEL_HELP = "A hub id, a folder with a diffusers repository, or `synthetic`."
SHAPE_HELP = "WxH, WxHxFRAMES or either with @STEPS; may be repeated. Else two sizes × two step counts."
PRECISION_HELP = (
    "How weights are held: auto, bf16, fp16, fp32, int8, fp8 or nf4, with +offload to keep them on the host."
)
OPTIONS_HELP = "The spec's model.options; for `synthetic` its stages."
DEVICE_HELP = "cpu, cuda:0, or GPUs by name (H100,L4); else the first GPU, else the processor."


def profile(  # noqa: PLR0913, PLR0917  # one parameter an option
    model: Annotated[str, typer.Argument(metavar="MODEL", help=MODEL_HELP)],
    stage: Annotated[str | None, typer.Option("--stage", help="Only this stage.")] = None,
    shape: Annotated[list[str] | None, typer.Option("--shape", metavar="SHAPE", help=SHAPE_HELP)] = None,
    device: Annotated[str | None, typer.Option("--device", help=DEVICE_HELP)] = None,
    repeats: Annotated[int, typer.Option("--repeats", min=1, max=100, help="Times each is measured.")] = 3,
    random_weights: Annotated[bool, typer.Option("--random-weights", help="Do not use the model's weights.")] = False,
    name: Annotated[str | None, typer.Option("--name", help="What rows call the model; else its id or folder.")] = None,
    dtype: Annotated[str, typer.Option("--dtype", help="auto, float32, bfloat16 or float16.")] = "auto",
    precision: Annotated[str, typer.Option("--precision", help=PRECISION_HELP)] = "auto",
    options: Annotated[str, typer.Option("--options", metavar="JSON", help=OPTIONS_HELP)] = "{}",
    revision: Annotated[str | None, typer.Option("--revision", help="Of a model on the hub.")] = None,
    infra: Annotated[str, typer.Option("--infra", help="Where to measure; here unless it says otherwise.")] = "local",
    budget: Annotated[float | None, typer.Option("--budget", metavar="USD_PER_H", help="Of a rented machine.")] = None,
    catalog: Annotated[str | None, typer.Option("--catalog", metavar="CSV", help="Prices of what to rent.")] = None,
    time_limit: Annotated[
        float, typer.Option("--time-limit", min=1, max=86400, metavar="SECONDS", help="Of measuring on one machine.")
    ] = 3600.0,
    yes: Yes = False,
    file: Annotated[Path, typer.Option("--file", "-f", metavar="CSV", help="The profiles file.")] = Path(
        "profiles.csv"
    ),
    output: Output = "table",
) -> None:
    """Measure each stage of a model, alone in a process, and write the profiles that `plan` reads."""
    import signal

    from disagctl.cli import profile_rented as rented
    from disagctl.cli.output import say
    from disagctl.profiling.devices import find_devices
    from disagctl.profiling.models import Asked, find_subject
    from disagctl.profiling.rows import as_row, check, write
    from disagctl.profiling.run import profile as measure

    signal.signal(signal.SIGTERM, _stop)
    if infra != "local":
        check(file)
        flags = {"--stage": stage, "--name": name, "--dtype": dtype, "--precision": precision, "--options": options}
        flags |= {"--revision": revision, "--repeats": str(repeats)}
        argv = [part for flag, value in flags.items() if value is not None for part in (flag, value)]
        argv += [part for one in shape or () for part in ("--shape", one)]
        argv += ["--random-weights"] if random_weights else []
        wish = rented.wish_of(model, infra, device, catalog, budget, time_limit, argv)
        rented.run(wish, file, yes=yes, output=output)
        return
    check(file)
    devices = find_devices(device)
    asked = Asked(model, name, dtype, revision, precision, options, weights=not random_weights)
    subject = find_subject(asked)
    if subject.missing:
        say(f"{subject.name}: weights are made up: {subject.missing}")
    outcomes: list[Outcome] = []
    for one in devices:
        wanted = _options(subject, one, tuple(shape or ()), stage, repeats)
        with _display() as watch:
            outcomes.append(measure(subject, one, wanted, watch))
        write(file, [as_row(row) for row in outcomes[-1].rows])  # what is measured stays, should a later device fail
    _print(outcomes, subject, file, output)


def _options(
    subject: "Subject", device: "Device", shapes: tuple[str, ...], stage: str | None, repeats: int
) -> "Options":
    from disagctl import __version__
    from disagctl.clock import wall_s
    from disagctl.planning import shipped
    from disagctl.profiling.outcome import Options
    from disagctl.profiling.shapes import shapes_for
    from planner.facts import parse_gpus

    cards = {gpu.name: gpu for gpu in parse_gpus(shipped.text(shipped.GPUS), shipped.GPUS)}
    card = cards.get(device.name)
    return Options(
        shapes=shapes_for(subject.card, shapes, guidance=subject.guidance),
        stage=stage,
        repeats=repeats,
        why_random=subject.missing,
        origin=f"disagctl {__version__} profile {_day(wall_s())}",
        peak_tflops=card.tflops if card else None,
    )


def _stop(signum: int, _frame: object) -> None:
    """End as Ctrl-C does: processes and scratch files go first."""
    raise SystemExit(128 + signum)


def _day(wall: float) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(wall, UTC).date().isoformat()


def _print(outcomes: "list[Outcome]", subject: "Subject", file: Path, output: str) -> None:
    from disagctl.cli.output import data, document, say, show
    from disagctl.ui.profile import outcome
    from disagctl.views import SCHEMA_VERSION

    if output == "json":
        document({"schema_version": SCHEMA_VERSION, "model": subject.name, "file": str(file), "devices": outcomes})
        return
    for one in outcomes:
        show(outcome(one))
    data(str(file))
    say(f"{sum(len(one.rows) for one in outcomes)} rows are in {file}: disagctl plan SPEC --profiles {file}")


@contextmanager
def _display() -> "Iterator[Callable[[Moment], None]]":
    """A line that changes on a terminal; elsewhere a line for each thing that was measured."""
    from disagctl.cli.output import console, is_terminal, say
    from disagctl.ui.profile import moment_line

    if is_terminal(err=True):
        with console(err=True).status("starting") as status:
            yield lambda moment: status.update(moment_line(moment))
        return

    def line(moment: "Moment") -> None:
        if moment.shape is None or moment.seconds is not None:
            say(moment_line(moment))

    yield line
