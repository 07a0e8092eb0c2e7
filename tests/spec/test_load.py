import json
from pathlib import Path

import msgspec
import pytest
import yaml

from disagctl.errors import SpecError
from disagctl.spec import Spec, dump_spec, json_schema, load_spec, parse_spec
from disagctl.spec.units import Size
from tests.spec.specs import FULL, MINIMAL, SYNTHETIC, read

jsonschema = pytest.importorskip("jsonschema")
SHAPES = Path(__file__).parents[2] / "examples" / "shapes" / "model"


def test_every_key_of_the_contract_is_typed() -> None:
    spec = read(FULL)
    assert spec.models[0].name == "Wan2.1-T2V-14B-Diffusers"
    assert spec.models[0].revision == "0e12345"  # not the number 0·10¹²³⁴⁵
    assert spec.workload is not None
    assert spec.workload.rate_per_min == 12
    assert spec.workload.shapes[0].size == Size(832, 480)
    assert spec.slo.p95_s == 180
    assert spec.replicas("any", "denoise") == (1, 16)
    assert spec.replicas("any", "encode") == (1, 1)
    assert spec.artifacts.ttl_s == 7 * 86400
    assert spec.lifetime.scale_to_zero_s is None
    assert spec.lifetime.autodown_idle_s == 1800


def test_several_models_and_their_sources() -> None:
    spec = read(SYNTHETIC)
    first, second = spec.models
    assert spec.replicas("a", "denoise") == (2, 4)
    assert spec.replicas("b", "denoise") == (3, 3)
    assert spec.workload_of(first).rate_per_min == 120
    assert spec.slo_of(first).p95_s == 90
    assert spec.slo_of(second).p95_s is None
    source = spec.source(first)
    assert (source.name, source.id) == ("a", "synthetic")
    options = msgspec.json.decode(source.options)
    assert list(options) == ["encode", "denoise", "decode"]
    assert options["denoise"] == {"seconds": 1, "steps": 4, "fail_prompt": "no", "crash_prompt": "1e5"}


def test_defaults() -> None:
    spec = read(MINIMAL)
    assert spec.infra == ["local"]
    assert spec.stages == {}
    assert (spec.api.host, spec.api.port, spec.api.public, spec.api.max_queued) == ("127.0.0.1", None, False, 10_000)
    assert (spec.pipeline.mode, spec.pipeline.prefetch) == ("async", 2)
    assert spec.wish("synthetic", "encode").replicas is None
    assert spec.replicas("synthetic", "encode") == (1, 1)


@pytest.mark.parametrize("text", [FULL, SYNTHETIC, MINIMAL])
def test_dump_reads_back_equal(text: str, tmp_path: Path) -> None:
    spec = read(text)
    copy = tmp_path / "service.yaml"
    copy.write_text(dump_spec(spec), encoding="utf-8")
    assert load_spec(copy) == spec
    assert load_spec(copy, check_files=False) == spec


def test_local_model_becomes_an_absolute_folder(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "service.yaml"
    path.parent.mkdir()
    (tmp_path / "model").symlink_to(SHAPES)
    path.write_text("name: x\nmodel: ../model\nworkload: {rate: 1/s}\n")
    spec = load_spec(path)
    assert spec.models[0].id == str(tmp_path / "model")
    assert spec.models[0].name == "model"
    assert parse_spec(dump_spec(spec), base=Path("/elsewhere")) == spec
    (tmp_path / "model").unlink()
    with pytest.raises(SpecError, match=r"service\.yaml:2: there is no folder"):
        load_spec(path)
    assert load_spec(path, check_files=False) == spec


def test_schema_accepts_what_the_loader_accepts() -> None:
    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    for text in (SYNTHETIC, MINIMAL, dump_spec(read(FULL))):
        jsonschema.validate(yaml.safe_load(text), schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"name": "x", "model": "a/b", "wrkload": {}}, schema)
    assert json.loads(json.dumps(schema)) == schema


def test_the_example_specs_load() -> None:
    examples = Path(__file__).parents[2] / "examples"
    for path in sorted(examples.glob("*.yaml")):
        assert isinstance(load_spec(path), Spec)
