"""Replicas of several GPUs: what the spec asks for, what the plan makes of it, and what is started of that."""

import json
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import msgspec
import pytest

from disagctl import precheck
from disagctl.cli.main import run
from disagctl.control_config import role_bounds, widths_of
from disagctl.errors import InfeasibleError
from disagctl.head import model_infos, sources_of
from disagctl.planning import local
from disagctl.planning.deploy import deploy
from disagctl.planning.document import document
from disagctl.planning.saved import follow
from disagctl.rented import bundles_of, no_seats, shares_of
from disagctl.renting_loop import rented_config
from disagctl.roster import Roster
from disagctl.spec import Spec, load_spec
from planner.domain import Role, Shape
from planner.run.fleet import NodeRoom
from planner.run.rent import Deployment
from planner.run.wide import seat_all
from stages.protocol import GpuInfo

CATALOG = """cloud,region,instance_type,accelerator,count,price,spot_price,max_nodes
slurm,here,pair,H100,2,5.0,,4
slurm,here,node,L4,1,0.7,,4
"""
PROFILES = """model,stage,gpu,width,height,frames,steps,seconds,peak_gib,source,gpus,load_s
shop,encode,L4,32,32,1,20,0.05,10,measured,1,10
shop,denoise,H100,32,32,1,20,4.0,30,measured,1,30
shop,denoise,H100,32,32,1,20,2.5,20,measured,2,40
shop,denoise+decode,H100,32,32,1,20,2.51,30,measured,2,40
shop,decode,L4,32,32,1,20,0.05,10,measured,1,10
"""
SPEC = """
name: shop
model: {name: shop, id: synthetic, stages: {encode: {seconds: 0.05}, denoise: {seconds: 1}, decode: {seconds: 0.05}}}
workload: {rate: 30/min, shapes: [{size: 32x32, steps: 20}]}
infra: slurm/here
catalog: catalog.csv
profiles: profiles.csv
stages:
  encode: {resources: {accelerators: [L4]}}
"""
ENCODE, DENOISE, DECODE = (Role("shop", stage) for stage in ("encode", "denoise", "decode"))
SHAPE = Shape(32, 32, 1, 20)
Made = Callable[..., tuple[Spec, Deployment]]


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Made:
    """What ``up`` would rent for the spec with these lines added; and the spec as it would be started."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DISAGCTL_HOME", str(tmp_path / "home"))

    def plan(
        more: str = "", catalog: str = CATALOG, profiles: str = PROFILES, text: str = SPEC
    ) -> tuple[Spec, Deployment]:
        (tmp_path / "catalog.csv").write_text(catalog)
        (tmp_path / "profiles.csv").write_text(profiles)
        path = tmp_path / "service.yaml"
        path.write_text(text + more)
        spec = load_spec(path)
        view, found = deploy(spec, path, None, (), nullcontext)
        assert {row["gpus_per_replica"] for row in document(view)["rows"]} >= {1}
        return spec, msgspec.json.decode(msgspec.json.encode(found), type=Deployment)  # as the head reads it

    return plan


def widths(spec: Spec) -> dict[Role, int]:
    return widths_of(sources_of(spec, model_infos(spec, 0.0)))


WIDE = "  denoise: {gpus_per_replica: 2}\n"


def test_what_the_spec_asks_for_is_planned_rented_and_started(made: Made) -> None:
    spec, found = made(WIDE)
    rows = {row.stage: (row.gpus_per_replica, row.offer.accelerator, row.offer.count) for row in found.plan.rows}
    assert rows["denoise"] == (2, "H100", 2)
    assert found.wanted[DENOISE] == 2, "0.5 requests a second of 2.5 s each"
    pairs = next(wish for wish in found.wishes if wish.offers[0].accelerator == "H100")
    assert (pairs.count, pairs.count * pairs.offers[0].usd_per_hour) == (2, 10.0)
    assert widths(spec) == {DENOISE: 2}

    rooms = [NodeRoom("h1", (0, 1), "H100"), NodeRoom("l1", (0,), "L4"), NodeRoom("h2", (0, 1), "H100")]
    plans = seat_all(found.wanted, rooms, (), shares_of(found), bundles_of(found) or None, widths(spec))
    assert {(plan.node, plan.slot) for plan in plans if plan.role == DENOISE} == {("h1", "gpu0_1"), ("h2", "gpu0_1")}
    assert {plan.node for plan in plans if plan.role != DENOISE} == {"l1"}


def test_the_loop_keeps_still_and_knows_the_times_of_the_worker_as_a_whole(made: Made) -> None:
    spec, found = made(WIDE)
    config, seconds, off = rented_config(spec, role_bounds(spec, model_infos(spec, 0.0)), found, {}, None)
    assert (config.mode, config.elastic, off) == ("static", False, "denoise has 2 GPUs a worker")
    assert seconds(DENOISE, "H100", SHAPE) == pytest.approx(2.5)
    assert config.load_s[DENOISE] == 40.0
    roster = Roster(found.wanted)
    roster.widths = widths(spec)
    assert no_seats({**found.wanted, ENCODE: 9}, roster, found, 0) == ""
    assert no_seats({**found.wanted, DENOISE: 3}, roster, found, 0).startswith(
        "GPUs were rented for 2 of denoise, of 2 each"
    )


def test_a_plan_may_spread_by_itself_but_only_what_workers_can(made: Made) -> None:
    spec, found = made(text=SPEC.replace("infra:", "slo: {p95: 5s}\ninfra:"))
    rows = {row.stage: row.gpus_per_replica for row in found.plan.rows}
    assert rows["denoise"] == 2, "4 s on one GPU leave too little to wait"
    assert widths(spec) == {DENOISE: 2}
    assert spec.wish("shop", "denoise").gpus_per_replica == 2
    assert "denoise+decode" not in rows


def test_one_gpu_a_replica_is_a_wish_too(made: Made) -> None:
    spec, found = made("  denoise: {gpus_per_replica: 1}\n")
    assert {row.gpus_per_replica for row in found.plan.rows} == {1}
    assert widths(spec) == {}


def test_a_synthetic_model_is_as_quick_on_several_as_it_says(made: Made) -> None:
    text = SPEC.replace("denoise: {seconds: 1}", "denoise: {seconds: 4, exchange: 0.1}").replace(
        "profiles: profiles.csv\n", ""
    )
    _, found = made(WIDE, text=text)
    assert next(row for row in found.plan.rows if row.stage == "denoise").seconds_per_request == pytest.approx(2.4)


@pytest.mark.parametrize(
    ("catalog", "profiles", "why", "next_"),
    [
        (CATALOG.replace("H100,2,5.0", "H100,1,2.5"), PROFILES, "no offer has so many", "offer larger nodes"),
        (CATALOG, PROFILES.replace(",measured,2,", ",measured,1,"), "no profile has it on 2 GPUs", "rows with gpus=2"),
    ],
)
def test_what_there_is_not(made: Made, catalog: str, profiles: str, why: str, next_: str) -> None:
    with pytest.raises(InfeasibleError) as caught:
        made(WIDE, catalog=catalog, profiles=profiles)
    assert why in str(caught.value)
    assert next_ in str(caught.value)


def test_the_command_line_shows_them_and_the_simulator_says_that_it_does_not_follow(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(precheck, "has_skypilot", lambda: True)
    made(WIDE)
    path = str(tmp_path / "service.yaml")
    assert run(("up", path, "--dry-run")) == 0
    assert "+ 2 × slurm/here pair H100:2: $10.00/h" in capsys.readouterr().out.splitlines()
    saved = tmp_path / "plan.json"
    assert run(("plan", path, "-o", "json")) == 0
    saved.write_text(capsys.readouterr().out)
    assert run(("up", path, "--plan", str(saved), "--dry-run")) == 0
    assert "H100:2" in capsys.readouterr().out
    assert run(("simulate", path, "--trace", "steps", "-o", "json")) == 0
    assert "stages.denoise.gpus_per_replica is not simulated" in "".join(capsys.readouterr())


def test_a_plan_of_this_machine_says_it_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = SPEC.replace("slurm/here", "local").replace("catalog: catalog.csv\nprofiles: profiles.csv\n", "")
    path, saved = tmp_path / "local.yaml", tmp_path / "plan.json"
    path.write_text(text + WIDE)
    found: dict[str, Any] = {}
    for cards, said in ((2, 2), (0, 0)):
        monkeypatch.setattr(local, "gpus", lambda cards=cards: (GpuInfo(0, "H100", 1),) * cards)
        found = local.plan(load_spec(path))
        assert {row["stage"]: row["gpus_per_replica"] for row in found["rows"]}["denoise"] == said
        saved.write_text(json.dumps(found))
        spec = load_spec(path)
        follow(saved, spec)
        assert spec.wish("shop", "denoise").gpus == 2
    found["rows"][1]["gpus_per_replica"], found["rows"][0]["gpus_per_replica"] = 4, 1
    saved.write_text(json.dumps(found))
    spec = load_spec(path)
    follow(saved, spec)
    assert widths(spec) == {DENOISE: 4}
    found["rows"][0]["gpus_per_replica"] = 2
    saved.write_text(json.dumps(found))
    with pytest.raises(InfeasibleError, match="the plan has encode on 2 GPUs"):
        follow(saved, load_spec(path))
