"""What is promised for each kind of request."""

from pathlib import Path

import pytest

from disagctl.errors import SpecError
from disagctl.objectives import Objectives
from disagctl.spec import parse_spec
from planner.domain import Shape

SPEC = """
name: mixed
models:
  - {name: pictures, id: synthetic, slo: {scale: 3}}
  - name: clips
    id: synthetic
    slo: {p95: 300s}
    workload:
      rate: 1/min
      shapes:
        - {share: 0.8, size: 64x64, frames: 1, steps: 4, slo: {p95: 2s}}
        - {share: 0.1, size: 64x64, frames: 81, slo: {scale: 1.5}}
        - {share: 0.1, size: 8x8}
workload: {rate: 1/s}
policy: {dispatch: {kind: edf, preempt: false, max_pauses: 2}}
"""


def test_by_shape_then_by_model_in_seconds_or_as_a_multiple(tmp_path: Path) -> None:
    spec = parse_spec(SPEC, base=tmp_path)
    objectives = Objectives(spec, lambda _model, shape: 10.0 if shape.width == 64 else None)
    assert objectives.seconds("pictures", Shape(64, 64, 1, 9)) == 30.0
    assert objectives.seconds("pictures", Shape(8, 8)) is None  # how long it takes alone is not known yet
    assert objectives.seconds("pictures", None) is None
    assert objectives.seconds("clips", Shape(64, 64, 1, 4)) == 2.0
    assert objectives.seconds("clips", Shape(64, 64, 81, 7)) == 15.0
    assert objectives.seconds("clips", Shape(8, 8, 1, 2)) == 300.0


def test_dispatch_is_a_name_or_a_mapping(tmp_path: Path) -> None:
    told = parse_spec(SPEC, base=tmp_path).policy.dispatching
    assert (told.kind, told.preempt, told.max_pauses) == ("edf", False, 2)
    short = SPEC.replace("{kind: edf, preempt: false, max_pauses: 2}", "genserve")
    assert parse_spec(short, base=tmp_path).policy.dispatching.kind == "genserve"
    with pytest.raises(SpecError, match=r":15: .*did you mean 'edf'"):
        parse_spec(SPEC.replace("kind: edf", "kind: eff"), base=tmp_path)
    with pytest.raises(SpecError, match=r":15: .*did you mean 'preempt'"):
        parse_spec(SPEC.replace("preempt:", "premept:"), base=tmp_path)
