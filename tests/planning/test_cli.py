"""The verb: exit codes, the document, what is shown, and that it is quick."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest

from disagctl.errors import InfeasibleError, OverBudgetError, UsageError
from disagctl.planning import solver_process
from tests.planning.conftest import SPEC, Cli, Shop

ROOT = Path(__file__).parents[2]
NUMBER = {"type": "number"}
TEXT = {"type": "string"}
OFFER = {
    "cloud": TEXT, "region": TEXT, "instance_type": TEXT, "accelerator": TEXT, "count": {"type": "integer", "minimum": 1},
    "spot": {"type": "boolean"},
}  # fmt: skip


def exactly(**keys: Any) -> dict[str, Any]:
    return {"type": "object", "required": list(keys), "properties": keys}


ROUTE = exactly(shape={"type": "object"}, rate_per_min=NUMBER)
ROW = exactly(
    model=TEXT, stage=TEXT, offer=exactly(**OFFER), nodes={"type": "integer"}, replicas={"type": "integer", "minimum": 1},
    gpus_per_replica={"type": "integer", "minimum": 1}, seconds_per_request=NUMBER, usd_per_hour=NUMBER,
    utilisation={"type": "number", "maximum": 1}, source={"enum": ["measured", "published", "estimated"]},
    routes={"type": "array", "items": ROUTE, "minItems": 1},
)  # fmt: skip
OTHER = exactly(name=TEXT, usd_per_hour={"type": ["number", "null"]}, feasible={"type": "boolean"}, why=TEXT)
DOCUMENT = exactly(
    schema_version={"type": "integer"}, feasible={"const": True}, usd_per_hour=NUMBER, throughput_per_min=NUMBER, p95_s=NUMBER,
    rows={"type": "array", "items": ROW, "minItems": 1}, alternatives={"type": "array", "items": OTHER},
    solver=exactly(status=TEXT, gap=NUMBER, seconds=NUMBER),
)  # fmt: skip


def test_a_plan_as_json(shop: Shop, cli: Cli) -> None:
    code, out, err = cli("plan", str(shop.spec), "-o", "json")
    assert (code, err) == (0, "")
    document = json.loads(out)
    jsonschema.validate(document, DOCUMENT)
    assert sum(row["usd_per_hour"] for row in document["rows"]) <= document["usd_per_hour"] + 1e-6
    assert document["throughput_per_min"] == pytest.approx(6)
    assert document["p95_s"] <= 60
    assert {row["offer"]["cloud"] for row in document["rows"]} == {"acme"}
    for stage in ("encode", "denoise", "decode"):
        routed = [
            r["rate_per_min"] for row in document["rows"] if stage in row["stage"].split("+") for r in row["routes"]
        ]
        assert sum(routed) == pytest.approx(6, rel=1e-3)


def test_a_plan_as_a_table(shop: Shop, cli: Cli) -> None:
    code, out, err = cli("plan", str(shop.spec), "--explain", "decode", "H100")
    assert (code, err) == (0, "")
    for word in (
        "shop  $",
        "per 1000 requests",
        "6 requests/min",
        "STAGE",
        "NODES × OFFER",
        "measured",
        "ALTERNATIVE",
        "H100 for decode:",
    ):
        assert word in out
    assert "\x1b" not in out


def test_options_stand_in_for_the_specs_own(shop: Shop, cli: Cli, tmp_path: Path) -> None:
    prices = shop.write(tmp_path / "other.csv", shop.prices.read_text().replace("acme", "zenith"))
    code, out, _ = cli("plan", str(shop.spec), "--catalog", prices, "--infra", "zenith", "-o", "json")
    assert code == 0
    assert {row["offer"]["cloud"] for row in json.loads(out)["rows"]} == {"zenith"}
    shop.write(shop.spec, SPEC.replace("[acme]", "[zenith]"))
    assert cli("plan", str(shop.spec), "--catalog", prices, "-o", "json")[0] == 0  # a cloud that only the catalog knows


@pytest.mark.parametrize(
    ("old", "new", "options", "code", "kind"),
    [
        ("p95: 60s", "p95: 1s", (), 4, "infeasible"),
        ("rate: 6/min", "rate: 9000/min", (), 4, "infeasible"),
        ("acme/painter, name: painter", "acme/sculptor", (), 4, "profile_first"),
        ("[acme]", "[gcp]", (), 4, "no_offers"),
        ("", "", ("--budget", "0.01"), 5, "over_budget"),
    ],
)
def test_no_plan(shop: Shop, cli: Cli, old: str, new: str, options: tuple[str, ...], code: int, kind: str) -> None:
    shop.write(shop.spec, SPEC.replace(old, new) if old else SPEC)
    found, out, err = cli("plan", str(shop.spec), "-o", "json", *options)
    assert found == code, err
    document = json.loads(out)
    assert document["feasible"] is False
    assert document["why"]
    assert document["kind"] == kind
    assert err.startswith("error[")
    assert len(err.splitlines()) == 1
    found, out, err = cli("plan", str(shop.spec), *options)
    assert (found, out) == (code, "")


@pytest.mark.parametrize(
    ("file", "old", "new", "where"),
    [
        ("prices", "big,H100,1,3.0", "big,H100,1,-3.0", "prices.csv:3"),
        ("prices", "accelerator", "card", "prices.csv:1"),
        ("timings", ",20,20,20,measured", ",20,nan,20,measured", "timings.csv:3"),
        ("spec", "rate: 6/min", "rate: 0/min", "service.yaml:4"),
        ("spec", "slo:", "sla:", "service.yaml:6"),
    ],
)
def test_bad_files(shop: Shop, cli: Cli, file: str, old: str, new: str, where: str) -> None:
    path = getattr(shop, file)
    shop.write(path, path.read_text().replace(old, new))
    for output in ("json", "table"):
        code, out, err = cli("plan", str(shop.spec), "-o", output)
        assert (code, out) == (3, "")
        assert f"{where}: " in err


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (("--explain", "denoise", "H1000"), "H100"),
        (("--explain", "denoisee", "H100"), "denoise"),
        (("--plot", "cost.jpg"), ".png"),
        (("--plot", "no/such/cost.png"), "no folder"),
        (("--budget", "-1"), "dollars"),
        (("--infra", "acmee"), "acme"),
        (("--time-limit", "0"), "0.1"),
    ],
)
def test_bad_options(shop: Shop, cli: Cli, options: tuple[str, ...], word: str) -> None:
    code, out, err = cli("plan", str(shop.spec), *options)
    assert (code, out) == (2, "")
    assert word in err


def test_a_solver_without_end(shop: Shop, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(solver_process, "WORKER", ("-c", "import time; time.sleep(600)"))
    defaults = {**(solver_process.solve.__kwdefaults__ or {}), "grace_s": 0.2}
    monkeypatch.setattr(solver_process.solve, "__kwdefaults__", defaults)
    code, out, err = cli("plan", str(shop.spec), "--time-limit", "0.2")
    assert (code, out) == (8, "")
    assert "--time-limit" in err


def test_a_picture(shop: Shop, cli: Cli, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    for name, begin in (("cost.png", b"\x89PNG"), ("cost.svg", b"<?xml")):
        code, _, err = cli("plan", str(shop.spec), "--plot", str(tmp_path / name))
        assert (code, err) == (0, f"wrote {tmp_path / name}\n")
        assert (tmp_path / name).read_bytes().startswith(begin)


def test_a_picture_without_matplotlib(shop: Shop, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda *_: None)
    code, out, err = cli("plan", str(shop.spec), "--plot", "cost.png")
    assert (code, out) == (2, "")
    assert "disagctl[plot]" in err


LOCAL = "name: here\nmodel: synthetic\nworkload: {rate: 1/s}\ninfra: local\nstages: {denoise: {replicas: 2..4}}\n"


def test_this_machine_needs_neither_prices_nor_profiles(shop: Shop, cli: Cli) -> None:
    shop.write(shop.spec, LOCAL)
    code, out, _ = cli("plan", str(shop.spec), "-o", "json")
    document = json.loads(out)
    assert code == 0
    assert document["feasible"] is True
    assert [(row["stage"], row["replicas"]) for row in document["rows"]] == [
        ("encode", 1),
        ("denoise", 2),
        ("decode", 1),
    ]
    code, out, _ = cli("plan", str(shop.spec))
    assert code == 0
    assert "this machine" in out


def test_own_machines_are_offers(shop: Shop, cli: Cli) -> None:
    shop.write(shop.prices, shop.prices.read_text().replace("acme", "slurm"))
    shop.write(shop.spec, SPEC.replace("[acme]", "slurm"))
    code, out, _ = cli("plan", str(shop.spec), "-o", "json")
    assert code == 0
    assert {row["offer"]["cloud"] for row in json.loads(out)["rows"]} == {"slurm"}


def test_a_synthetic_model_is_timed_by_its_spec(shop: Shop, cli: Cli) -> None:
    stages = "{encode: {seconds: 0.1}, denoise: {seconds_per_step: 0.5, weights_gib: 4}, decode: {seconds: 0.2}}"
    load = "workload: {rate: 30/min, shapes: [{size: 64x64, steps: 4}]}\n"
    text = f"name: demo\nmodel: {{id: synthetic, stages: {stages}}}\n{load}"
    shop.write(shop.spec, text + "bundles: false\ninfra: [acme]\ncatalog: prices.csv\n")
    code, out, err = cli("plan", str(shop.spec), "-o", "json")
    assert (code, err) == (0, "")
    rows = json.loads(out)["rows"]
    assert {row["stage"]: row["seconds_per_request"] for row in rows} == {"encode": 0.1, "denoise": 2.0, "decode": 0.2}
    assert {row["source"] for row in rows} == {"measured"}


def test_rows_of_other_models_are_noticed(shop: Shop, cli: Cli) -> None:
    shop.write(shop.timings, shop.timings.read_text().replace("painter", "painted"))
    code, _, err = cli("plan", str(shop.spec))
    assert code == 4
    assert "painted" in err


def test_up_with_a_plan(shop: Shop, cli: Cli, tmp_path: Path) -> None:
    shop.write(shop.spec, LOCAL)
    _, out, _ = cli("plan", str(shop.spec), "-o", "json")
    saved = json.loads(out)
    saved["rows"][1]["replicas"] = 3
    path = shop.write(tmp_path / "plan.json", json.dumps(saved))
    code, out, _ = cli("up", str(shop.spec), "--plan", path, "--dry-run")
    assert code == 0
    assert "denoise: 3 worker(s)" in out
    for change, expected in (
        ({"name": "other"}, 2),
        ({"feasible": False}, 4),
        ({"schema_version": 9}, 3),
        ({"rows": 1}, 3),
    ):
        path = shop.write(tmp_path / "plan.json", json.dumps(saved | change))
        assert cli("up", str(shop.spec), "--plan", path, "--dry-run")[0] == expected
    saved["rows"][0]["offer"]["cloud"] = "aws"
    path = shop.write(tmp_path / "plan.json", json.dumps(saved))
    code, _, err = cli("up", str(shop.spec), "--plan", path, "-y")
    assert code == UsageError.exit_code
    assert "a plan for aws" in err


def test_the_kinds_of_refusal_have_their_codes() -> None:
    from disagctl.planning.deploy import refused
    from planner.plan import Infeasible

    assert isinstance(refused(Infeasible("over_budget", "budget", "too dear", usd_per_hour=9.0)), OverBudgetError)
    assert isinstance(refused(Infeasible("infeasible", "slo", "too slow")), InfeasibleError)
    assert refused(Infeasible("no_profile", "profiles", "nothing known")).error_code == "profile_first"


def test_the_example_is_quick() -> None:
    """Start-up and everything; the bar of three seconds is for a machine that does nothing else."""
    started = time.monotonic()
    command = [
        sys.executable,
        "-m",
        "disagctl.cli.main",
        "plan",
        str(ROOT / "examples" / "wan-shop.yaml"),
        "-o",
        "json",
    ]
    done = subprocess.run(command, capture_output=True, check=True)
    assert json.loads(done.stdout)["feasible"] is True
    assert time.monotonic() - started < 15


def test_help_loads_nothing_heavy() -> None:
    heavy = "('numpy', 'highspy', 'planner', 'rich', 'yaml', 'sky')"
    code = (
        f"import sys; from disagctl.cli import main; main.run(['-h']); print([m for m in {heavy} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert done.stdout.rstrip().endswith("[]")
