"""The wheel that travels to nodes is one that pip takes, and holds what runs here."""

import subprocess
import sys
import zipfile
from pathlib import Path

import disagctl
from task_templates.kit import AGENT, template, write_kit
from task_templates.wheel import ROOT, wheel_bytes, wheel_name


def test_the_same_code_gives_the_same_bytes() -> None:
    assert wheel_bytes() == wheel_bytes()


def test_pip_installs_it_and_it_runs(tmp_path: Path) -> None:
    wheel = tmp_path / wheel_name()
    wheel.write_bytes(wheel_bytes())
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert {"stages/agent.py", "task_templates/agent.yaml", "task_templates/constraints.txt"} <= names
    assert not [name for name in names if name.endswith((".pyc", ".so")) or name.startswith("tests/")]
    target = tmp_path / "code"
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "-q",
        "--no-deps",
        "--no-index",
        "--target",
        str(target),
        str(wheel),
    ]
    subprocess.run(command, check=True, capture_output=True)
    ask = "import importlib.metadata as m, stages.agent as a; print(a.__file__, m.version('disagctl'))"
    environment = {"PYTHONPATH": str(target)}
    said = subprocess.run(
        [sys.executable, "-c", ask], env=environment, cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert said.stdout.split() == [str(target / "stages/agent.py"), disagctl.__version__]


def test_a_kit_is_named_after_its_content(tmp_path: Path) -> None:
    kit = write_kit(tmp_path)
    assert write_kit(tmp_path) == kit
    assert [path.name for path in tmp_path.iterdir()] == [kit.name], "nothing half-made stays"
    assert (kit / "constraints.txt").read_bytes() == (ROOT / "constraints.txt").read_bytes()
    assert {"install.sh", "places.sh", "agent.sh", "lock.key", "code.key", wheel_name()} <= {
        p.name for p in kit.iterdir()
    }


def test_a_template_names_no_secret() -> None:
    task = template(AGENT)
    assert set(task["envs"]) == {"DISAGCTL_EXTRA", "DISAGCTL_CACHE"}
