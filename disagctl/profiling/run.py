"""One stage after the other, each alone in a process of its own; within a stage one shape after the other.

What a stage hands on is kept in files, so that the next one gets real inputs and no two stages share memory.
"""

from collections.abc import Callable
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import msgspec

from disagctl.errors import DisagctlError, InfeasibleError, UnexpectedError, UsageError
from disagctl.profiling.child import Child, StageTrouble
from disagctl.profiling.devices import Device
from disagctl.profiling.fit import Point, fit
from disagctl.profiling.inputs import picture_parcel, request
from disagctl.profiling.models import Subject
from disagctl.profiling.outcome import Moment, Options, Outcome, Skipped
from planner.domain import Profile, Shape
from planner.precision import AUTO, unfit
from stages.parcel_file import write_parcel
from stages.profile_wire import Blank, BlankModel, Loaded, LoadStage, Measure, Measured, Progress
from stages.protocol import ModelSource

GIB = 1 << 30
PATIENCE_S = 60.0  # a shape is not repeated once so much was spent on it
_PER_SHAPE = frozenset({"memory", "request"})  # troubles that another shape may not have


Watch = Callable[[Moment], None]


def profile(subject: Subject, device: Device, options: Options, watch: Watch) -> Outcome:
    """Measure the model's stages on one device. Raises DisagctlError; no process is left, whatever happens."""
    stages = list(subject.card.stages)
    if options.stage is not None:
        if options.stage not in stages:
            raise UsageError(f"{subject.name} has no stage {options.stage!r}", why=f"it has {', '.join(stages)}")
        stages = stages[: stages.index(options.stage) + 1]
    outcome = Outcome(device.name)
    with TemporaryDirectory(prefix="disagctl-profile-") as scratch:
        work = Path(scratch)
        if options.why_random:
            subject = msgspec.structs.replace(subject, source=_blank(subject, work))
        alive = {shape: _first_input(subject, shape, work, i) for i, shape in enumerate(options.shapes)}
        for stage in stages:
            asked = options.stage in (None, stage)
            alive = _Stage(subject, device, options, watch, work, outcome).run(stage, alive, asked=asked)
            if not alive:
                last = outcome.skipped[-1]
                raise _failure(subject, device, stage, StageTrouble(last.kind, last.why))
    return outcome


class _Stage:
    """Measures one stage."""

    def __init__(
        self, subject: Subject, device: Device, options: Options, watch: Watch, work: Path, outcome: Outcome
    ) -> None:
        self.subject, self.device, self.options, self.watch = subject, device, options, watch
        self.work, self.outcome = work, outcome

    def run(self, stage: str, inputs: dict[Shape, Path | None], *, asked: bool) -> dict[Shape, Path | None]:
        """Each shape's output, by shape; shapes that did not work are left out."""
        outputs: dict[Shape, Path | None] = {}
        points: list[Point] = []
        self.watch(Moment(self.device.name, stage))
        with Child(self.device.index, self.work / f"{stage}.log") as child:
            source = _held(self.subject.source, stage)
            order = LoadStage(source, stage, self.device.torch, randomise=bool(self.options.why_random))
            loaded = self._ask(lambda: child.ask(order, Loaded), stage)
            for i, (shape, given) in enumerate(inputs.items()):
                output = self.work / f"{stage}-{i}.parcel"
                try:
                    measured = self._measure(child, stage, shape, given, output, self.options.repeats if asked else 1)
                except StageTrouble as err:
                    if err.kind not in _PER_SHAPE:
                        raise _failure(self.subject, self.device, stage, err) from err
                    self.outcome.skipped.append(Skipped(stage, shape, err.kind, str(err)))
                    continue
                outputs[shape] = output
                if asked:
                    points.append(_point(shape, measured))
                    self.outcome.rows.append(self._row(stage, shape, loaded, measured))
        if points:
            self._fit(stage, points)
        for path in inputs.values():
            if path is not None:
                path.unlink(missing_ok=True)
        return outputs

    def _measure(
        self, child: Child, stage: str, shape: Shape, given: Path | None, output: Path, repeats: int
    ) -> Measured:
        params = msgspec.json.encode(request(self.subject.card, shape))
        order = Measure(params, str(given) if given else None, str(output), repeats, PATIENCE_S)

        def show(step: Progress) -> None:
            self.watch(Moment(self.device.name, stage, shape, step))

        self.watch(Moment(self.device.name, stage, shape))
        measured = child.ask(order, Measured, show)
        self.watch(Moment(self.device.name, stage, shape, seconds=median(measured.seconds)))
        return measured

    def _row(self, stage: str, shape: Shape, loaded: Loaded, measured: Measured) -> Profile:
        made_up = bool(self.options.why_random)
        return Profile(
            model=self.subject.name,
            stage=stage,
            gpu=self.device.name,
            shape=shape,
            seconds=median(measured.seconds),
            peak_gib=measured.peak_bytes / GIB,
            source="measured",
            precision=loaded.precision or "bf16",
            weights_gib=loaded.weights_bytes / GIB,
            load_s=None if made_up else loaded.load_s,  # holes are read faster than weights
            origin=self.options.origin + (f"; weights random ({self.options.why_random})" if made_up else ""),
        )

    def _fit(self, stage: str, points: list[Point]) -> None:
        law = fit(stage, points, self.subject.work, self.options.peak_tflops)
        self.outcome.laws.append(law)
        self.outcome.rows = [
            msgspec.structs.replace(row, error=law.error) if row.stage == stage else row for row in self.outcome.rows
        ]

    def _ask(self, ask: Callable[[], Loaded], stage: str) -> Loaded:
        try:
            return ask()
        except StageTrouble as err:
            raise _failure(self.subject, self.device, stage, err) from err


def _held(source: ModelSource, stage: str) -> ModelSource:
    """What the stage is loaded from; a VAE as it was saved, whatever the precision."""
    return msgspec.structs.replace(source, precision=AUTO) if unfit(source.precision, stage) else source


def _failure(subject: Subject, device: Device, stage: str, err: StageTrouble) -> DisagctlError:
    """What the exit code should say of a stage that cannot be measured."""
    what = f"{stage} of {subject.name} cannot be measured on {device.name}"
    if err.kind in {"memory", "died"}:
        return InfeasibleError(
            what, why=str(err), next="try a smaller --shape, or another device", code="nothing_measured"
        )
    if err.kind in {"model", "request"}:
        return UsageError(what, why=str(err), code=f"{err.kind}_unusable")
    return UnexpectedError(what, why=str(err))


def _point(shape: Shape, measured: Measured) -> Point:
    middle = median(measured.seconds)
    return Point(shape, middle, median(abs(one - middle) for one in measured.seconds) / middle)


def _first_input(subject: Subject, shape: Shape, work: Path, number: int) -> Path | None:
    """A picture, for models that begin with one."""
    if not subject.card.needs_image:
        return None
    path = work / f"input-{number}.parcel"
    write_parcel(path, picture_parcel(shape.width, shape.height))
    return path


def _blank(subject: Subject, work: Path) -> ModelSource:
    """The model with made-up weights, in a folder of ours."""
    target = work / "model"
    with Child(None, work / "blank.log") as child:
        try:
            child.ask(BlankModel(subject.source, str(target)), Blank)
        except StageTrouble as err:
            raise UsageError(
                f"{subject.name} cannot be given random weights", why=str(err), code="model_unusable"
            ) from err
    return msgspec.structs.replace(subject.source, id=str(target), revision=None)
