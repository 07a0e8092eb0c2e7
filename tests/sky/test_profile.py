"""`disagctl profile --infra slurm`: the rows come, nothing stays."""

import csv
from pathlib import Path

import pytest
from typer.testing import CliRunner

from disagctl import orphans
from disagctl.cli.main import app
from tests.sky.slurm import Slurm
from tests.sky.slurm_conf import CLUSTER

STAGES = '{"encode": {"seconds": 0.01}, "denoise": {"seconds_per_step": 0.01}, "decode": {"seconds": 0.01}}'


@pytest.mark.timeout(900)
def test_rented_gpus_are_measured_and_released(healthy: Slurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISAGCTL_HOME", str(tmp_path / "home"))
    rows = tmp_path / "rows.csv"
    asked = ["profile", "synthetic", "--infra", f"slurm/{CLUSTER}", "--device", "L4", "--options", STAGES]
    asked += ["--shape", "64x64@2", "-f", str(rows)]

    refused = CliRunner().invoke(app, asked)
    assert refused.exit_code != 0
    assert not rows.exists(), "nothing is rented without a yes"

    done = CliRunner().invoke(app, [*asked, "-y"])
    assert done.exit_code == 0, done.output
    with rows.open() as file:
        found = list(csv.DictReader(file))
    assert [row["stage"] for row in found] == ["encode", "denoise", "decode"]
    assert {row["gpu"] for row in found} == {"CPU"}, "the fixture's GPUs are none: rows say what measured"
    assert all(CLUSTER in row["origin"] for row in found)
    assert orphans.find() == []
