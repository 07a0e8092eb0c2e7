"""disagctl simulate: the document, the table, the picture, and what is refused."""

import json
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest

from disagctl.cli.main import run
from tests.planning.conftest import Cli

SOME = "dynamic,static:1:5:2"
NUMBER = {"type": "number"}
POLICY = {
    "type": "object",
    "required": ["name", "requests", "qpm_by_minute", "usd", "slo_attainment", "actions"],
    "properties": {
        "name": {"type": "string"},
        "requests": {"type": "integer"},
        "qpm_by_minute": {"type": "array", "items": {"type": "integer"}},
        "usd": NUMBER,
        "slo_attainment": {"type": ["number", "null"]},
        "actions": {"type": "integer"},
    },
}
DOCUMENT = {
    "type": "object",
    "required": ["schema_version", "policies", "dynamic_over_oracle", "dynamic_over_best_static"],
    "properties": {"policies": {"type": "array", "items": POLICY, "minItems": 1}},
}

SYNTHETIC = """\
name: paper
model:
  id: synthetic
  stages:
    encode: {seconds: 0.5, load_s: 20}
    denoise: {seconds_per_step: 15.75, load_s: 60}
    decode: {seconds: 13.0, load_s: 10}
workload:
  rate: 5.5/min
  shapes: [{size: 1280x720, frames: 81, steps: 4}]
slo: {p95: 300s}
bundles: false
infra: local
"""
RENTED = """\
name: shop
model: {id: acme/painter, name: painter}
workload: {rate: 5/min, shapes: [{size: 1280x720, frames: 81, steps: 4}]}
infra: [acme]
bundles: false
catalog: prices.csv
profiles: timings.csv
"""
PRICES = """\
cloud,region,instance_type,accelerator,count,price,spot_price,max_nodes,launch_s
acme,here,big,H100,8,32.0,,1,60
"""
TIMINGS = """\
model,stage,gpu,width,height,frames,steps,seconds,peak_gib,source,weights_gib,load_s
acme/painter,encode,H100,1280,720,81,4,0.5,12,measured,10,20
acme/painter,denoise,H100,1280,720,81,4,63.0,60,measured,28,60
acme/painter,denoise,H100,1280,720,81,1,15.75,60,measured,28,60
acme/painter,decode,H100,1280,720,81,4,13.0,20,measured,1,10
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DISAGCTL_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)
    for name, text in (
        ("paper.yaml", SYNTHETIC),
        ("shop.yaml", RENTED),
        ("prices.csv", PRICES),
        ("timings.csv", TIMINGS),
    ):
        Path(name).write_text(text)
    return tmp_path


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    def call(*args: str) -> tuple[int, str, str]:
        code = run(args)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def simulated(cli: Cli, *args: str) -> dict[str, Any]:
    code, out, err = cli("simulate", *args, "-o", "json")
    assert code == 0, err
    found: dict[str, Any] = json.loads(out)
    jsonschema.validate(found, DOCUMENT)
    return found


def test_the_papers_trace_as_json(cli: Cli) -> None:
    args = ("paper.yaml", "--trace", "paper", "--workers", "8", "--write-trace", "trace.csv")
    found = simulated(cli, *args)
    names = [policy["name"] for policy in found["policies"]]
    assert names[:3] == ["dynamic", "reactive", "predict"]
    assert {"oracle", "static:1:6:1", "static:1:5:2"} <= set(names)
    assert found["dynamic_over_best_static"] > 1.1
    assert found["dynamic_over_oracle"] >= 0.97
    for policy in found["policies"]:
        assert sum(policy["qpm_by_minute"]) == policy["requests"]
    assert found["policies"][0]["decisions"][0]["code"] == "change"
    again = simulated(cli, "paper.yaml", "--trace", "trace.csv", "--workers", "8", "--policy", "dynamic,static:1:5:2")
    first = {policy["name"]: policy["requests"] for policy in found["policies"]}
    assert {policy["name"]: policy["requests"] for policy in again["policies"]} == {
        name: first[name] for name in ("dynamic", "static:1:5:2")
    }
    assert again["dynamic_over_oracle"] is None


def test_the_same_command_prints_the_same_bytes(cli: Cli) -> None:
    args = (
        "simulate",
        "paper.yaml",
        "--trace",
        "gamma2",
        "--workers",
        "8",
        "--noise",
        "0.2",
        "--seed",
        "3",
        "-o",
        "json",
    )
    first, second = (cli(*args, "--policy", SOME)[1] for _ in range(2))
    assert first == second


def test_profiles_and_a_catalog_that_ends_where_the_load_does_not(cli: Cli) -> None:
    rows = [f"{4 * n},1280,720,81,{4 if n < 75 else 1}" for n in range(150)]
    Path("log.csv").write_text("\n".join(["arrival_s,width,height,frames,steps", *rows]))
    found = simulated(cli, "shop.yaml", "--trace", "log.csv", "--policy", "dynamic,static:1:5:2")
    assert found["workers"] == 8
    assert found["policies"][0]["usd"] == pytest.approx(32 * 149 * 4 / 3600, rel=1e-3)
    assert "no plan carries this trace" in found["warnings"][0]


def test_the_table_and_the_picture(cli: Cli) -> None:
    code, out, err = cli(
        "simulate", "paper.yaml", "--trace", "paper", "--workers", "8", "--plot", "timeline.png", "--policy", SOME
    )
    assert code == 0
    assert "dynamic serves 1." in out
    assert "the work per request has changed" in out
    assert "a decision takes" in err
    assert Path("timeline.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (("--trace", "nothing"), 2, "no generator of that name"),
        (("--trace", "paper", "--policy", "magic"), 2, "there is no 'magic'"),
        (("--trace", "paper", "--policy", "static:1:2"), 2, "names 2 stages"),
        (("--trace", "paper", "--workers", "0"), 2, "--workers"),
        (("--trace", "paper", "--elastic"), 2, "nothing to rent"),
        (("--trace", "bad.csv"), 3, "bad.csv:2"),
        (("--trace", "short.csv"), 3, "at least two requests"),
        (("--trace", "paper", "--plot", "timeline.gif"), 2, "--plot cannot write"),
    ],
)
def test_refusals(cli: Cli, args: tuple[str, ...], code: int, words: str) -> None:
    Path("bad.csv").write_text("arrival_s,width,height,frames,steps\nsoon,1280,720,81,4\n")
    Path("short.csv").write_text("arrival_s,width,height,frames,steps\n0,1280,720,81,4\n")
    found, _, err = cli("simulate", "paper.yaml", *args)
    assert found == code, err
    assert words in err


def test_a_stage_nobody_timed_is_refused(cli: Cli) -> None:
    Path("timings.csv").write_text("\n".join(TIMINGS.splitlines()[:-1]) + "\n")
    code, _, err = cli("simulate", "shop.yaml", "--trace", "paper", "--workers", "8")
    assert code == 4
    assert "profile" in err
