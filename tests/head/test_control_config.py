"""What the control loop is told of a spec."""

from pathlib import Path

import pytest

from disagctl.control_config import (
    Known,
    first_counts,
    loop_off,
    places,
    policy_config,
    role_bounds,
    widths_of,
    within,
)
from disagctl.head import model_infos, sources_of
from disagctl.shapes import shape_of
from disagctl.spec import Spec, parse_spec
from planner.domain import Role, Shape
from planner.run.config import RoleBounds
from stages.models.base import ModelCard

SPEC = """
name: x
model:
  id: synthetic
  stages:
    encode: {{seconds: 0.5, load_s: 2}}
    denoise: {{seconds_per_step: 0.25, steps: 4}}
    decode: {{seconds: 0.1}}
workload: {{rate: 60/min, shapes: [{{size: 64x64, steps: 4}}]}}
infra: local
slo: {{p95: 9s}}
{more}
"""
ENCODE, DENOISE, DECODE = (Role("synthetic", stage) for stage in ("encode", "denoise", "decode"))


def spec(more: str = "") -> Spec:
    return parse_spec(SPEC.format(more=more), base=Path.cwd())


def bounds(more: str = "") -> tuple[RoleBounds, ...]:
    made = spec(more)
    return role_bounds(made, model_infos(made, 0.0))


def test_a_number_is_fixed_a_range_is_a_choice_and_nothing_is_at_least_one() -> None:
    found = bounds("stages: {encode: {replicas: 2}, denoise: {replicas: 1..6}}")
    assert found == (RoleBounds(ENCODE, 2, 2), RoleBounds(DENOISE, 1, 6), RoleBounds(DECODE, 1, None))


@pytest.mark.parametrize(
    ("more", "gpus", "room"),
    [
        ("", 0, 3),
        ("", 8, 3),
        ("stages: {denoise: {replicas: 1..16}}", 8, 8),
        ("policy: {workers: 6}", 8, 6),
        ("policy: {workers: 2}", 0, 3),
        ("stages: {denoise: {replicas: 4..8}}", 0, 6),
    ],
)
def test_how_many_workers_this_machine_holds(more: str, gpus: int, room: int) -> None:
    assert places(spec(more), bounds(more), gpus) == room


def test_with_several_gpus_a_worker_counts_stay_as_they_are_where_there_are_gpus() -> None:
    made = spec("stages: {denoise: {gpus_per_replica: 4, replicas: 1..3}}")
    infos = model_infos(made, 0.0)
    widths = widths_of(sources_of(made, infos))
    assert widths == {DENOISE: 4}
    assert loop_off(made, widths, 8) == "denoise has 4 GPUs a worker"
    assert loop_off(made, widths, 0) == loop_off(made, {}, 8) == ""
    known = Known(made, Path("service.yaml"))
    assert policy_config(made, role_bounds(made, infos), known, {}, "why").mode == "static"


def test_what_is_left_goes_to_the_smallest_first() -> None:
    some = (RoleBounds(ENCODE, 1, 1), RoleBounds(DENOISE, 2, 3), RoleBounds(DECODE, 1, None))
    assert first_counts(some, None) == {ENCODE: 1, DENOISE: 2, DECODE: 1}
    assert first_counts(some, 6) == {ENCODE: 1, DENOISE: 3, DECODE: 2}
    assert first_counts(some, 9) == {ENCODE: 1, DENOISE: 3, DECODE: 5}
    assert first_counts(some[:2], 9) == {ENCODE: 1, DENOISE: 3}, "no more than they may have"
    assert [within(count, some[1]) for count in (1, 3, 9)] == [2, 3, 3]


def test_a_synthetic_model_is_known_as_it_is_declared(tmp_path: Path) -> None:
    made = spec("policy: {scaling: reactive, interval: 2s}")
    known = Known(made, tmp_path / "service.yaml")
    assert known.seconds(DENOISE, "", Shape(64, 64, 1, 8)) == 2.0
    assert known.seconds(ENCODE, "H100", Shape(64, 64)) == 0.5
    assert known.seconds(Role("other", "encode"), "", Shape(64, 64)) is None
    config = policy_config(made, bounds(), known, {"synthetic": 9.0})
    assert (config.mode, config.interval_s, config.elastic) == ("reactive", 2.0, False)
    assert config.load_s == {ENCODE: 2.0, DENOISE: 0.0, DECODE: 0.0}
    assert config.workload is not None
    assert [one.shape for one in config.workload.classes] == [Shape(64, 64, 1, 4)]


def test_a_request_has_the_shape_that_its_class_in_the_spec_has() -> None:
    card = ModelCard(("encode",), "video", "text2video", defaults={"guidance_scale": 5.0})
    params = b'{"prompt":"x","width":832,"height":480,"num_frames":81,"num_inference_steps":50,"guidance_scale":%s}'
    assert shape_of(params % b"5.0", card) == Shape(832, 480, 81, 50)
    assert shape_of(params % b"7.0", card) == Shape(832, 480, 81, 50, guidance=True)
    assert shape_of(params % b"1.0", card) == Shape(832, 480, 81, 50)
    assert shape_of(b"[]", card) is None
