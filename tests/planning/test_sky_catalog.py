"""SkyPilot's price lists, through modules that look like SkyPilot's."""

import os
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from disagctl.errors import SpecError
from disagctl.planning.catalogs import load_catalog

AGES = {"aws": 1_750_000_000, "lambda": 1_760_000_000}  # 2025-06-15, 2025-10-09


class Info(NamedTuple):
    cloud: str
    instance_type: str | None
    accelerator_name: str
    accelerator_count: float
    cpu_count: float | None
    device_memory: float | None
    memory: float | None
    price: float
    spot_price: float
    region: str


NAN = float("nan")
FOUND = {
    "H100": [
        Info("AWS", "p5.48xlarge", "H100", 8.0, 192, 80, 2048, 55.04, 11.25, "us-east-2"),
        Info("Lambda", "gpu_1x_h100", "H100", 1.0, 26, 80, 225, 3.29, NAN, "us-west-1"),
    ],
    "L4": [Info("AWS", "g6.xlarge", "L4", 1.0, 4, 24, 16, 0.8, 0.35, "us-east-1")],
    "Gaudi HL-205": [Info("AWS", "dl1.24xlarge", "Gaudi HL-205", 8.0, 96, 32, 768, 13.1, NAN, "us-east-1")],
    "A10G": [Info("AWS", "g5.xlarge", "A10G", 1.0, 4, 24, 16, 0.0, NAN, "us-east-1")],
}


@pytest.fixture
def sky(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[..., Any]], None]:
    for cloud, at in AGES.items():
        (tmp_path / cloud).mkdir()
        path = tmp_path / cloud / "vms.csv"
        path.write_text("x")
        os.utime(path, (at, at))
    names = ["sky", "sky.catalog", "sky.catalog.common", "sky.skylet", "sky.skylet.constants"]
    made: dict[str, Any] = {name: types.ModuleType(name) for name in names}
    made["sky"].catalog, made["sky"].skylet = made["sky.catalog"], made["sky.skylet"]
    made["sky.catalog"].common = made["sky.catalog.common"]
    made["sky.skylet"].constants = made["sky.skylet.constants"]
    made["sky.catalog.common"].get_catalog_path = lambda name: str(tmp_path / name)
    made["sky.skylet.constants"].ALL_CLOUDS = ("AWS", "GCP", "Lambda")
    for name, module in made.items():
        monkeypatch.setitem(sys.modules, name, module)

    def listing(answer: Callable[..., Any]) -> None:
        made["sky.catalog"].list_accelerators = answer

    def plain(*, gpus_only: bool, clouds: list[str], all_regions: bool) -> dict[str, list[Info]]:
        assert gpus_only
        assert all_regions
        print("updating …")
        return {gpu: [i for i in infos if i.cloud.lower() in clouds] for gpu, infos in FOUND.items()}

    listing(plain)
    return listing


def test_offers_of_the_clouds_on_the_disk(sky: object, capsys: pytest.CaptureFixture[str]) -> None:
    catalog = load_catalog("sky", [])
    offers = {(o.cloud, o.instance_type, o.accelerator, o.count, o.spot, o.usd_per_hour) for o in catalog.offers}
    assert offers == {
        ("aws", "p5.48xlarge", "H100", 8, False, 55.04),
        ("aws", "p5.48xlarge", "H100", 8, True, 11.25),
        ("lambda", "gpu_1x_h100", "H100", 1, False, 3.29),
        ("aws", "g6.xlarge", "L4", 1, False, 0.8),
        ("aws", "g6.xlarge", "L4", 1, True, 0.35),
    }
    assert not any(defect.fatal for defect in catalog.defects)
    assert {catalog.as_of(o) for o in catalog.offers if o.cloud == "aws"} == {"2025-06-15"}
    assert {catalog.as_of(o) for o in catalog.offers if o.cloud == "lambda"} == {"2025-10-09"}
    assert capsys.readouterr().out == ""  # stdout is for data


def test_only_the_clouds_asked_for(sky: object) -> None:
    assert {o.cloud for o in load_catalog("sky", ["lambda/us-west-1", "slurm"]).offers} == {"lambda"}


def test_a_failed_refresh_makes_no_price_newer(sky: Callable[..., None], tmp_path: Path) -> None:
    def touched(**_: object) -> dict[str, list[Info]]:
        (tmp_path / "aws" / "vms.csv").touch()  # what SkyPilot does when it cannot reach the network
        return FOUND

    sky(touched)
    catalog = load_catalog("sky", ["aws"])
    assert {catalog.as_of(o) for o in catalog.offers if o.cloud == "aws"} == {"2025-06-15"}


def test_a_refresh_does(sky: Callable[..., None], tmp_path: Path) -> None:
    def refreshed(**_: object) -> dict[str, list[Info]]:
        new = tmp_path / "new"
        new.write_text("y")
        new.rename(tmp_path / "aws" / "vms.csv")
        return FOUND

    sky(refreshed)
    catalog = load_catalog("sky", ["aws"])
    assert all(catalog.as_of(o) > "2026" for o in catalog.offers if o.cloud == "aws")


def test_no_list_on_the_disk(sky: object) -> None:
    with pytest.raises(SpecError, match="no price list of gcp"):
        load_catalog("sky", ["gcp"])


def test_no_skypilot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sky", None)
    with pytest.raises(SpecError, match=r"disagctl\[sky\]"):
        load_catalog("sky", [])
