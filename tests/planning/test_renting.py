"""What ``up`` says and asks before it rents anything, with a plan of its own or a saved one."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from disagctl import precheck
from disagctl.cli.main import run

CATALOG = """cloud,region,instance_type,accelerator,count,price,spot_price,max_nodes
slurm,here,node,H100,1,2.5,,1
slurm,here,node,A100,1,{a100},,1
slurm,here,node,L4,1,0.7,,2
"""
PROFILES = """model,stage,gpu,width,height,frames,steps,seconds,peak_gib,source,load_s
shop,encode,L4,32,32,1,20,0.05,0.5,measured,10
shop,denoise,H100,32,32,1,20,1.0,0.5,measured,10
shop,denoise,A100,32,32,1,20,1.6,0.5,measured,10
shop,decode,L4,32,32,1,20,0.05,0.5,measured,10
"""
SPEC = """
name: shop
model: {name: shop, id: synthetic, stages: {encode: {seconds: 0.05}, denoise: {seconds: 1}, decode: {seconds: 0.05}}}
workload: {rate: 70/min, shapes: [{size: 32x32, steps: 20}]}
infra: slurm/here
catalog: catalog.csv
profiles: profiles.csv
bundles: false
stages:
  encode: {resources: {accelerators: [L4]}}
  denoise: {resources: {accelerators: [H100, A100]}}
  decode: {resources: {accelerators: [L4]}}
"""
Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The spec's file, in a folder and a home of their own."""
    monkeypatch.setenv("DISAGCTL_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(precheck, "has_skypilot", lambda: True)
    (tmp_path / "catalog.csv").write_text(CATALOG.format(a100=1.5))
    (tmp_path / "profiles.csv").write_text(PROFILES)
    path = tmp_path / "service.yaml"
    path.write_text(SPEC)
    return path


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    """A command line in this process."""

    def call(*args: str) -> tuple[int, str, str]:
        code = run(args)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def test_the_cost_is_shown_and_nobody_there_to_say_yes_is_a_no(shop: Path, cli: Cli, tmp_path: Path) -> None:
    code, out, err = cli("up", str(shop))
    assert (code, out) == (2, "")
    assert "4 node(s), $5.40/h; with 2 stand-in offer(s) at most $6.40/h" in err
    assert "add -y" in err
    assert not (tmp_path / "home" / "services").exists()
    code, out, _ = cli("up", str(shop), "--dry-run")
    assert code == 0
    assert "+ 2 × slurm/here node L4:1: $1.40/h" in out.splitlines()
    assert cli("up", str(shop), "-y", "--budget", "5")[0] == 5


def test_a_saved_plan_is_taken_at_todays_prices(shop: Path, cli: Cli, tmp_path: Path) -> None:
    saved = tmp_path / "plan.json"
    saved.write_text(cli("plan", str(shop), "-o", "json")[1])
    (tmp_path / "catalog.csv").write_text(CATALOG.format(a100=1.6))
    code, out, _ = cli("up", str(shop), "--plan", str(saved), "--dry-run")
    assert code == 0
    assert "+ 1 × slurm/here node A100:1: $1.60/h" in out.splitlines()
    assert cli("up", str(shop), "--plan", str(saved), "--dry-run", "--budget", "5.45")[0] == 5
    (tmp_path / "catalog.csv").write_text(CATALOG.format(a100=3))
    code, _, err = cli("up", str(shop), "--plan", str(saved), "--dry-run")
    assert (code, "price_rose" in err) == (5, True)
    (tmp_path / "catalog.csv").write_text(CATALOG.format(a100=3).replace("A100", "A40"))
    code, _, err = cli("up", str(shop), "--plan", str(saved), "--dry-run")
    assert (code, "offer_gone" in err) == (4, True)


def test_what_this_version_cannot_start_is_refused(shop: Path, cli: Cli, tmp_path: Path) -> None:
    plan = json.loads(cli("plan", str(shop), "-o", "json")[1])
    (tmp_path / "catalog.csv").write_text(CATALOG.format(a100=1.5) + "slurm,here,pair,H100,2,2.5,,1\n")
    row = next(row for row in plan["rows"] if row["offer"]["accelerator"] == "H100")
    row["gpus_per_replica"] = 2
    for part in (row, *(node for node in plan["nodes"] if node["offer"]["accelerator"] == "H100")):
        part["offer"] |= {"instance_type": "pair", "count": 2}
    saved = tmp_path / "plan.json"
    saved.write_text(json.dumps(plan))
    code, _, err = cli("up", str(shop), "--plan", str(saved), "-y")
    assert (code, "the plan has denoise on 2 and on 1 GPUs a replica" in err) == (4, True)
    row["stage"], plan["rows"][-1]["stage"] = "decode", "denoise"
    saved.write_text(json.dumps(plan))
    code, _, err = cli("up", str(shop), "--plan", str(saved), "-y")
    assert (code, "spread nothing but denoise" in err) == (4, True)
    del plan["rows"][0]["utilisation"]
    saved.write_text(json.dumps(plan))
    code, _, err = cli("up", str(shop), "--plan", str(saved), "-y")
    assert (code, "plan_invalid" in err) == (3, True)
