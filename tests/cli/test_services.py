"""init, up, down, doctor, schema."""

import json
import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from disagctl import lifecycle
from disagctl.cli import checks
from disagctl.cli.template import service_name
from disagctl.spec import Spec, load_spec, parse_spec
from disagctl.state import NAME, ServiceRecord, read_record
from disagctl.views import StatusView
from tests.cli.conftest import Cli
from tests.cli.fake_admin import FakeHead

# httpcore leaves a socket that could not be connected to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning")

jsonschema = pytest.importorskip("jsonschema")
SHAPES = Path(__file__).parents[2] / "examples" / "shapes" / "model"


@pytest.mark.parametrize("model", ["synthetic", str(SHAPES)])
def test_init_writes_what_load_spec_accepts(model: str, cli: Cli) -> None:
    code, out, err = cli("init", model)
    assert (code, out) == (0, "service.yaml\n"), err
    assert "disagctl up service.yaml" in err
    spec = load_spec(Path("service.yaml"))
    assert spec.models[0].id == model
    assert spec.infra == ["local"]
    text = Path("service.yaml").read_text()
    options = [line.removeprefix("# ") for line in text.splitlines() if re.match(r"# [a-z]+: ", line)]
    defaults = parse_spec(text, base=Path())
    for option in options:  # what is commented out is valid, and the default
        if not option.startswith(("budget", "catalog", "profiles", "secrets")):
            assert parse_spec(f"{text}\n{option}\n", base=Path()) == defaults, option
    assert len(options) > 8


def test_init_of_a_folder_beside_the_spec_stays_relative(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "shapes").symlink_to(SHAPES)
    assert cli("init", "models/shapes", "-n", "mine", "-f", "mine.yaml")[0] == 0
    assert "id: ./models/shapes" in Path("mine.yaml").read_text()
    assert load_spec(Path("mine.yaml")).name == "mine"


def test_init_pins_the_commit_of_a_hub_model(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = tmp_path / "0123456789abcdef0123456789abcdef01234567"
    commit.symlink_to(SHAPES)
    monkeypatch.setattr("stages.models.weights._snapshot", lambda *args: commit)
    assert cli("init", "some-org/Some_Model-1.0")[0] == 0
    spec = load_spec(Path("service.yaml"))
    assert (spec.name, spec.models[0].id, spec.models[0].revision) == (
        "some-model-1-0",
        "some-org/Some_Model-1.0",
        commit.name,
    )


def test_init_does_not_overwrite(cli: Cli) -> None:
    Path("service.yaml").write_text("mine")
    code, _, err = cli("init", "synthetic")
    assert (code, Path("service.yaml").read_text()) == (2, "mine")
    assert "--force" in err
    assert cli("init", "synthetic", "--force")[0] == 0


def test_init_of_nothing(cli: Cli, tmp_path: Path) -> None:
    assert cli("init", "not a model")[0] == 2
    assert cli("init", str(tmp_path))[0] == 2
    assert not Path("service.yaml").exists()


@pytest.mark.parametrize(
    "model", ["Wan-AI/Wan2.1-T2V-14B-Diffusers", "x", "9-lives/", "./a/b_c/", "é", "-" * 99, "A" * 99]
)
def test_names_made_from_models_are_valid(model: str) -> None:
    assert NAME.fullmatch(service_name(model))


def played_up(head: FakeHead, wait: list[float | None]) -> Callable[..., ServiceRecord]:
    def up(
        spec: Spec, *, wait_s: float | None, on_progress: Callable[[StatusView], None], deployment: object
    ) -> ServiceRecord:
        assert deployment is None
        wait.append(wait_s)
        for _ in range(3):
            on_progress(head.status())
        return read_record(head.where)

    return up


def test_up_shows_progress_and_prints_the_endpoint(head: FakeHead, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    wait: list[float | None] = []
    monkeypatch.setattr(lifecycle, "up", played_up(head, wait))
    cli("init", "synthetic", "-n", "demo")
    code, out, err = cli("up", "service.yaml", "--timeout", "2m")
    assert (code, out) == (0, "http://127.0.0.1:8460\n")
    assert "n2.m.denoise.2.1: loading — loading weights" in err
    assert err.count("n1.m.encode.0.1") == 1
    assert "demo is ready" in err
    assert cli("up", "service.yaml", "--no-wait")[0] == 0
    assert wait == [120.0, None]
    assert msgspec.json.decode(cli("up", "service.yaml", "-o", "json")[1], type=StatusView).name == "demo"


def test_dry_run_changes_nothing(cli: Cli, home: Path) -> None:
    cli("init", "synthetic", "-n", "demo")
    code, out, err = cli("up", "service.yaml", "--dry-run")
    assert code == 0
    assert "synthetic.denoise: 1 worker(s)" in out
    assert "nothing was changed" in err
    assert json.loads(cli("up", "service.yaml", "--dry-run", "-o", "json")[1])["changes"] == out.splitlines()
    assert not (home / "services").exists()


def test_down_refuses_without_a_terminal(head: FakeHead, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lifecycle, "down", lambda *a, **k: pytest.fail("it was called"))
    code, _, err = cli("down", "demo")
    assert code == 2
    assert "add -y" in err


def test_down(head: FakeHead, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def down(name: str, *, discard: bool, on_progress: Callable[[str], None]) -> list[Path]:
        asked.append((name, discard))
        on_progress("ending node n1")
        return [Path("demo-results/a.png")]

    monkeypatch.setattr(lifecycle, "down", down)
    code, out, err = cli("down", "demo", "-y", "--discard")
    assert (code, out) == (0, "demo-results/a.png\n")
    assert "ending node n1" in err
    assert json.loads(cli("down", "demo", "-y", "-o", "json")[1])["files"] == ["demo-results/a.png"]
    assert asked == [("demo", True), ("demo", False)]


def test_doctor(head: FakeHead, home: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "_mooncake", lambda: iter([checks.Check("mooncake", "ok", "")]))
    monkeypatch.setenv("HF_TOKEN", "hf_very_secret")
    code, out, _ = cli("doctor", "-o", "json")
    document = json.loads(out)
    assert (code, document["ok"], document["schema_version"]) == (0, True, 1)
    assert "very_secret" not in out
    named = {check["name"]: check for check in document["checks"]}
    assert named["service demo"]["status"] == "ok"
    assert {"python", "torch", "gpu", "memory", "disk", "ports", "state"} <= set(named)
    home.chmod(stat.S_IRWXU | stat.S_IROTH)
    head.stop()
    code, out, err = cli("doctor")
    assert code == 9
    assert "chmod 700" in out
    assert "no head" in out
    assert "checks failed" in err


def test_schema_describes_what_init_writes(cli: Cli) -> None:
    schema = json.loads(cli("schema")[1])
    assert schema["schema_version"] == 1
    jsonschema.validate({"name": "x", "model": "a/b", "workload": {"rate": "1/s"}}, schema)


def test_version(cli: Cli) -> None:
    assert cli("--version")[1].startswith("disagctl ")
