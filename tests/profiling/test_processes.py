"""`disagctl profile` from outside: real processes, tiny models, the file it leaves, and nothing else left."""

import csv
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil
import pytest

TinyModel = Callable[[str], Path]
STAGES = ["encode", "denoise", "decode"]


def command(*args: str | Path) -> list[str]:
    return [sys.executable, "-m", "disagctl.cli.main", "profile", *map(str, args)]


def run(*args: str | Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(command(*args), capture_output=True, text=True, timeout=400, check=False)


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_tiny_flux(tiny_model: TinyModel, tmp_path: Path) -> None:
    path = tmp_path / "profiles.csv"
    shapes = ("--shape", "32x32@2", "--shape", "64x64@2", "--shape", "32x32@4", "--shape", "64x64@4")
    done = run(tiny_model("flux"), "--device", "cpu", "--repeats", "1", "-o", "json", "-f", path, *shapes)
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    rows = table(path)
    assert [(row["stage"], row["width"], row["steps"]) for row in rows] == [
        (stage, width, steps) for stage in STAGES for width in ("32", "64") for steps in ("2", "4")
    ]
    for row in rows:
        assert (row["model"], row["gpu"], row["source"], row["precision"]) == ("flux", "CPU", "measured", "fp32")
        assert float(row["seconds"]) > 0
        assert float(row["peak_gib"]) >= float(row["weights_gib"]) > 0
        assert float(row["load_s"]) > 0
        assert float(row["error"]) >= 0.02
        assert "random" not in row["origin"]
    weights = {row["stage"]: float(row["weights_gib"]) * 2**30 for row in rows}
    # float32: 4 bytes for each parameter that the stage loads, and for none of the others'
    assert weights == pytest.approx(
        {"encode": 4 * (25706 + 22816), "denoise": 4 * 81664, "decode": 4 * 27283}, rel=1e-4
    )
    assert len(answer["devices"][0]["rows"]) == 12
    assert [law["stage"] for law in answer["devices"][0]["laws"]] == STAGES
    assert "denoise 64x64 4 steps" in done.stderr


@pytest.mark.families
def test_configs_without_weights(tiny_model: TinyModel, tmp_path: Path) -> None:
    model = tmp_path / "wan"
    shutil.copytree(tiny_model("wan"), model, ignore=shutil.ignore_patterns("*.safetensors"))
    path = tmp_path / "p.csv"
    done = run(model, "--device", "cpu", "--repeats", "1", "--shape", "32x32x9@2", "-f", path, "--stage", "denoise")
    assert done.returncode == 0, done.stderr
    assert "weights are made up" in done.stderr
    (row,) = table(path)
    assert (row["stage"], row["load_s"], row["guidance"]) == ("denoise", "", "yes")
    assert "weights random" in row["origin"]
    assert float(row["weights_gib"]) * 2**30 == pytest.approx(4 * 28328, rel=1e-4)


def test_synthetic_twice(tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    for _ in range(2):
        assert run("synthetic", "--shape", "64x64@1", "-f", path).returncode == 0
    assert [row["stage"] for row in table(path)] == STAGES
    assert [one.name for one in tmp_path.iterdir()] == ["p.csv"]


def test_the_spec_of_a_synthetic_model(tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    options = '{"warm": {"seconds": 0.02}, "cool": {}}'
    assert run("synthetic", "--options", options, "--shape", "64x64@1", "-f", path).returncode == 0
    first, second = table(path)
    assert (first["stage"], second["stage"]) == ("warm", "cool")
    assert float(first["seconds"]) >= 0.02 > float(second["seconds"])


@pytest.mark.families
@pytest.mark.timeout(420)  # four processes, each with torchao to import: a minute where nothing else runs
def test_experts_and_precision(tiny_model: TinyModel, tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    if find_spec("torchao") is None:
        pytest.skip("needs the extra worker-quant")
    options = ("--options", '{"experts": "split"}', "--precision", "int8+offload", "--repeats", "1")
    done = run(tiny_model("wan22"), "--device", "cpu", *options, "--shape", "32x32x9@4", "-f", path)
    assert done.returncode == 0, done.stderr
    rows = {row["stage"]: row for row in table(path)}
    assert list(rows) == ["encode", "denoise_high", "denoise_low", "decode"]
    held = {stage: row["precision"] for stage, row in rows.items()}  # a CPU has nowhere to offload to
    assert held == {"encode": "int8", "denoise_high": "int8", "denoise_low": "int8", "decode": "fp32"}
    assert 28328 < float(rows["denoise_low"]["weights_gib"]) * 2**30 < 2 * 28328  # 4 bytes each in float32


@pytest.mark.parametrize(
    ("args", "code"),
    [
        (["synthetic", "--infra", "runpod", "--device", "H100,L4", "--budget", "4"], 4),
        (["synthetic", "--device", "GH200"], 4),
        (["synthetic", "--stage", "paint"], 2),
        (["synthetic", "--shape", "big"], 2),
        (["synthetic", "-f", "/nowhere/p.csv"], 2),
        (["/nowhere/model"], 2),
        (["synthetic", "--options", '{"encode": {"secnds": 1}}'], 2),
        (["synthetic", "--precision", "int3"], 2),
    ],
)
def test_refusals(args: list[str], code: int, tmp_path: Path) -> None:
    given = args if "-f" in args else [*args, "-f", str(tmp_path / "p.csv")]
    done = run(*given)
    assert done.returncode == code, done.stderr
    assert done.stderr.splitlines()[-1].startswith("error[")
    assert not list(tmp_path.iterdir())


def test_a_size_the_model_does_not_take(tiny_model: TinyModel, tmp_path: Path) -> None:
    done = run(tiny_model("flux"), "--device", "cpu", "--shape", "33x32@1", "-f", tmp_path / "p.csv")
    assert done.returncode == 2
    assert "multiple of 16" in done.stderr


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left_running(tiny_model: TinyModel, tmp_path: Path, signum: signal.Signals) -> None:
    args = command(
        tiny_model("flux"), "--device", "cpu", "--shape", "256x256@500", "--repeats", "9", "-f", tmp_path / "p.csv"
    )
    parent = subprocess.Popen(args, stderr=subprocess.PIPE, start_new_session=True)
    try:
        assert parent.stderr is not None
        for line in parent.stderr:
            if b"loading denoise" in line:
                break
        time.sleep(1.0)
        children = psutil.Process(parent.pid).children(recursive=True)
        assert children
        parent.send_signal(signum)
        assert parent.wait(10) == {signal.SIGINT: 130, signal.SIGTERM: 143}.get(signum, -signum)
        _, alive = psutil.wait_procs(children, 10)
        assert not alive
        assert not (tmp_path / "p.csv").exists()
    finally:
        if parent.poll() is None:
            parent.kill()
            parent.wait()
        if parent.stderr is not None:
            parent.stderr.close()
