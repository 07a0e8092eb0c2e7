"""What is refused before anything starts."""

import shutil
import socket
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from disagctl import lifecycle, precheck
from disagctl.errors import InfeasibleError, SpecError, UsageError
from disagctl.spec import Spec, parse_spec
from stages.protocol import GpuInfo

TEXT = """
name: checked
model: {{id: {model}}}
workload: {{rate: 1/s, shapes: [{{size: 64x64}}]}}
{more}
"""


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DISAGCTL_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def spec(tmp_path: Path, more: str = "", model: str = "synthetic") -> Spec:
    return parse_spec(TEXT.format(model=model, more=more), base=tmp_path)


def up(made: Spec) -> None:
    lifecycle.up(made, wait_s=1.0, on_progress=lambda _status: None)


def nothing_was_made(home: Path) -> bool:
    return not any((home / "services").glob("*"))


def test_port_in_use(tmp_path: Path, home: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UsageError) as caught:
            up(spec(tmp_path, f"api: {{port: {port}}}"))
    assert caught.value.error_code == "port_in_use"
    assert str(port) in str(caught.value)
    assert nothing_was_made(home)


def test_a_folder_that_is_no_model(tmp_path: Path, home: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(SpecError, match=r"service\.yaml:3: .*model_index\.json"):
        up(spec(tmp_path, model="./empty"))
    assert nothing_was_made(home)


def test_a_store_that_takes_nothing(tmp_path: Path, home: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError) as caught:
        up(spec(tmp_path, f"transport: {{mode: relay, relay: 'file://{tmp_path}/file/below'}}"))
    assert caught.value.error_code == "relay_failed"
    assert nothing_was_made(home)


def test_more_gpus_a_worker_than_there_are(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for more, here, why in (
        ("{gpus_per_replica: 4}", 2, "1 of denoise with 4 GPUs: 4 GPUs, of 2"),
        ("{gpus_per_replica: 2, replicas: 3..9}", 4, "3 of denoise with 2 GPUs: 6 GPUs, of 4"),
    ):
        monkeypatch.setattr(precheck, "gpus", lambda here=here: (GpuInfo(0, "H200", 1 << 37),) * here)
        with pytest.raises(InfeasibleError, match=why) as caught:
            up(spec(tmp_path, f"stages: {{denoise: {more}}}"))
        assert (caught.value.error_code, caught.value.exit_code) == ("too_few_gpus", 4)
        assert "gpus_per_replica" in str(caught.value)
    assert nothing_was_made(home)


def test_what_cannot_be_held_so(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tmp_path / "flux"
    model.mkdir()
    (model / "model_index.json").write_text('{"_class_name": "FluxPipeline"}')
    for precision, missing, why in (("int8", True, "torchao is not installed"), ("nf4", False, "on GPUs only")):
        monkeypatch.setattr(precheck, "find_spec", lambda _, missing=missing: None if missing else object())
        monkeypatch.setattr(precheck, "gpus", tuple)
        with pytest.raises(InfeasibleError, match=why) as caught:
            up(spec(tmp_path, f"stages: {{denoise: {{precision: {precision}}}}}", model="./flux"))
        assert caught.value.error_code == "precision_unsupported"
    assert nothing_was_made(home)


def test_too_little_memory(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    little = SimpleNamespace(available=1 << 20, total=1 << 30)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: little)
    with pytest.raises(InfeasibleError) as caught:
        up(spec(tmp_path))
    assert caught.value.error_code == "too_little_memory"
    assert nothing_was_made(home)


def test_too_little_disk(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: SimpleNamespace(free=1 << 20))
    with pytest.raises(InfeasibleError) as caught:
        up(spec(tmp_path))
    assert caught.value.error_code == "too_little_disk"
    assert nothing_was_made(home)


@pytest.mark.parametrize(
    ("more", "code"),
    [
        ("infra: [slurm, aws]", "head_unreachable"),
        ("artifacts: {store: 's3://bucket/x'}", "store_unsupported"),
    ],
)
def test_what_this_version_has_not(tmp_path: Path, home: Path, more: str, code: str) -> None:
    with pytest.raises(InfeasibleError) as caught:
        up(spec(tmp_path, more))
    assert caught.value.error_code == code
    assert caught.value.exit_code == 4
    assert nothing_was_made(home)
