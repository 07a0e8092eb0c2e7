"""The profiles file, shapes and devices: no process, no model."""

from pathlib import Path

import pytest

from disagctl.errors import InfeasibleError, SpecError, UsageError
from disagctl.profiling import devices
from disagctl.profiling.devices import find_devices
from disagctl.profiling.rows import COLUMNS, as_row, check, merge, write
from disagctl.profiling.shapes import shapes_for
from planner.domain import Profile, Shape
from planner.facts.profiles import parse_profiles
from stages.models.base import ModelCard
from stages.protocol import GpuInfo

# --- the file -------------------------------------------------------------------------------------------------------


def row(seconds: float, steps: int = 50, gpu: str = "H100", model: str = "wan") -> dict[str, str]:
    shape = Shape(832, 480, 81, steps, guidance=True)
    return as_row(
        Profile(
            model,
            "denoise",
            gpu,
            shape,
            seconds,
            40.0,
            "measured",
            weights_gib=26.6,
            load_s=31.0,
            error=0.04,
            origin="a, b",
        )
    )


def test_rows_are_what_the_planner_reads() -> None:
    text = merge("", [row(90.0), row(1e-7, steps=4)], "p.csv")
    assert text.splitlines()[0] == ",".join(COLUMNS)
    rows, defects = parse_profiles(text, "p.csv")
    assert not defects
    assert [one.seconds for one in rows] == [90.0, 1e-7]
    assert rows[0].shape == Shape(832, 480, 81, 50, guidance=True)
    assert (rows[0].weights_gib, rows[0].load_s, rows[0].error, rows[0].precision) == (26.6, 31.0, 0.04, "bf16")


def test_same_key_is_replaced_and_the_rest_is_kept() -> None:
    ours = "model,stage,gpu,width,height,frames,steps,seconds,peak_gib,source,remark\n"
    ours += "wan,denoise,H100,832,480,81,50,99,41,published,from a blog\n"
    ours += "wan,denoise,L4,832,480,81,50,700,20,measured,keep me\n"
    first = merge(ours, [row(90.0), row(95.0, steps=4)], "p.csv")
    assert first.splitlines()[1].startswith("wan,denoise,H100,832,480,81,50,99,41,published,from a blog")
    assert len(first.splitlines()) == 5
    second = merge(first, [row(80.0), row(70.0, gpu="L4")], "p.csv")
    lines = second.splitlines()
    assert len(lines) == 6  # L4's row was measured without guidance: another key
    assert lines[3].split(",")[7] == "80"
    assert "keep me" in second
    assert merge(second, [], "p.csv") == second


@pytest.mark.parametrize(
    "text", ["a,b\n1,2\n", "model,stage\n", ",".join(COLUMNS) + ",\n", ",".join(COLUMNS) + "\n" + "x," * 30 + "\n"]
)
def test_what_is_no_profiles_file_is_left_alone(text: str, tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    path.write_text(text)
    for act in (lambda: check(path), lambda: write(path, [row(1.0)])):
        with pytest.raises(SpecError):
            act()
    assert path.read_text() == text


def test_writing_is_one_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "p.csv"
    write(path, [row(1.0)])
    path.chmod(0o640)
    link = tmp_path / "link.csv"
    link.symlink_to(path)
    write(link, [row(2.0)])
    assert link.is_symlink()
    assert path.stat().st_mode & 0o777 == 0o640
    before = path.read_text()
    assert ",2," in before
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(UsageError, match="No space left"):
        write(path, [row(3.0)])
    assert path.read_text() == before
    assert sorted(one.name for one in tmp_path.iterdir()) == ["link.csv", "p.csv"]


def test_a_file_that_cannot_be_written_is_found_first(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no folder"):
        check(tmp_path / "none" / "p.csv")
    with pytest.raises(SpecError, match="not a profiles file"):
        check(tmp_path)


# --- shapes and devices ---------------------------------------------------------------------------------------------

STAGES = ("encode", "denoise", "decode")
FIELDS = {"width": 832, "height": 480, "num_frames": 81, "num_inference_steps": 50}
VIDEO = ModelCard(STAGES, "video", "text2video", 16, 4, defaults=FIELDS)
IMAGE = ModelCard(STAGES, "image", "text2image", 16, defaults={"width": 16, "height": 16, "num_inference_steps": 1})


def test_default_grid() -> None:
    assert [str(shape) for shape in shapes_for(VIDEO, [], guidance=True)] == [
        "416x240×81f 12 steps", "416x240×81f 50 steps", "832x480×81f 12 steps", "832x480×81f 50 steps",
    ]  # fmt: skip
    assert len({(one.width, one.steps) for one in shapes_for(IMAGE, [], guidance=False)}) == 4


def test_shapes_on_the_command_line() -> None:
    assert shapes_for(VIDEO, ["1280x720@4", "832x480x17@8"], guidance=False) == (
        Shape(832, 480, 17, 8),
        Shape(1280, 720, 81, 4),
    )
    assert [one.steps for one in shapes_for(IMAGE, ["64x64"], guidance=False)] == [1, 2]


@pytest.mark.parametrize(
    "text", ["", "832", "832x", "0x64", "64x64@0", "64x64x0", "64x64@4@4", "-64x64", "64x64 @4", "٦٤x٦٤"]
)
def test_no_shapes(text: str) -> None:
    with pytest.raises(UsageError):
        shapes_for(VIDEO, [text], guidance=False)


def gpu_names(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    found = tuple(GpuInfo(i + 2, name, 80 << 30) for i, name in enumerate(names))
    monkeypatch.setattr(devices, "gpus", lambda: found)


def test_devices_by_name_and_number(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu_names(monkeypatch, "NVIDIA H100 80GB HBM3", "NVIDIA L4", "NVIDIA Whatever 9")
    assert [(one.name, one.index, one.torch) for one in find_devices(None)] == [("H100", 2, "cuda:0")]
    assert [one.name for one in find_devices("L4,cuda:0,cpu")] == ["L4", "H100", "CPU"]
    assert find_devices("cuda:2")[0].name == "Whatever-9"
    assert find_devices("cpu")[0].torch == "cpu"
    for text in ("cuda:3", "B200"):
        with pytest.raises(InfeasibleError, match="H100"):
            find_devices(text)
    for text in ("cuda:x", "toaster"):
        with pytest.raises(UsageError):
            find_devices(text)


def test_no_gpu_means_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu_names(monkeypatch)
    assert find_devices(None)[0].name == "CPU"
    with pytest.raises(InfeasibleError, match="no NVIDIA GPU"):
        find_devices("cuda")
