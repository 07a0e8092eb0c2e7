"""The command line in this process, with a home of its own."""

from collections.abc import Callable
from pathlib import Path

import pytest

from disagctl.cli.main import run

Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "home"
    folder.mkdir(mode=0o700)
    monkeypatch.setenv("DISAGCTL_HOME", str(folder))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)
    return folder


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    """Run a command line: (exit code, stdout, stderr)."""

    def call(*args: str) -> tuple[int, str, str]:
        code = run(args)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


class Shop:
    """A folder with a spec, prices and timings that are easy to reckon with."""

    def __init__(self, folder: Path) -> None:
        self.spec = folder / "service.yaml"
        self.prices = folder / "prices.csv"
        self.timings = folder / "timings.csv"
        self.write(self.spec, SPEC)
        self.write(self.prices, PRICES)
        self.write(self.timings, TIMINGS)

    def write(self, path: Path, text: str) -> str:
        path.write_text(text)
        return str(path)


SPEC = """\
name: shop
model: {id: acme/painter, name: painter}
workload:
  rate: 6/min
  shapes: [{size: 512x512, steps: 20}]
slo: {p95: 60s}
infra: [acme]
catalog: prices.csv
profiles: timings.csv
"""
PRICES = """\
cloud,region,instance_type,accelerator,count,price,spot_price,max_nodes
acme,here,small,L4,1,0.5,,8
acme,here,big,H100,1,3.0,1.5,8
"""
TIMINGS = """\
model,stage,gpu,width,height,frames,steps,seconds,peak_gib,source
painter,encode,L4,512,512,1,20,0.2,10,measured
painter,denoise,L4,512,512,1,20,20,20,measured
painter,decode,L4,512,512,1,20,0.5,6,measured
painter,encode,H100,512,512,1,20,0.1,10,measured
painter,denoise,H100,512,512,1,20,4,20,measured
painter,decode,H100,512,512,1,20,0.2,6,measured
"""


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)
