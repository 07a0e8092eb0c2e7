"""What the control loop is told of rented GPUs: who may run where, how fast, and what the planner answers later."""

from contextlib import nullcontext

import msgspec
import pytest

from disagctl.control_config import role_bounds
from disagctl.planning.deploy import deploy
from disagctl.planning.fits import Known, outside
from disagctl.planning.renter import Renter
from disagctl.renting_loop import rented_config
from disagctl.service import ModelInfo
from disagctl.spec import Spec, load_spec
from planner.domain import RequestClass, Role, Shape, Workload
from planner.plan import Plan
from planner.run.decisions import Measured, Reason, Solve
from planner.run.fleet import lay_out
from planner.run.rent import Deployment
from stages.models.base import ModelCard

CATALOG = """cloud,region,instance_type,accelerator,count,price,spot_price,max_nodes
slurm,here,node,H100,1,2.5,,3
slurm,here,node,A100,1,1.5,,2
slurm,here,node,L4,1,0.7,,2
"""
PROFILES = """model,stage,gpu,width,height,frames,steps,seconds,peak_gib,source,load_s
shop,encode,L4,32,32,1,20,0.05,10,measured,10
shop,encode,H100,32,32,1,20,0.02,10,measured,10
shop,denoise,H100,32,32,1,20,1.0,30,measured,30
shop,denoise,A100,32,32,1,20,1.6,30,measured,30
shop,denoise,L4,32,32,1,20,9.0,30,measured,30
shop,decode,L4,32,32,1,20,0.05,10,measured,10
shop,decode,A100,32,32,1,20,0.04,5,measured,10
"""
SPEC = """
name: shop
model: {name: shop, id: synthetic, stages: {encode: {seconds: 0.05}, denoise: {seconds: 1}, decode: {seconds: 0.05}}}
workload: {rate: 40/min, shapes: [{size: 32x32, steps: 20}]}
infra: slurm/here
budget: {max_usd_per_hour: 7}
catalog: catalog.csv
profiles: profiles.csv
stages:
  encode: {resources: {accelerators: [L4]}}
"""
ENCODE, DENOISE, DECODE = (Role("shop", stage) for stage in ("encode", "denoise", "decode"))
SHAPE = Shape(32, 32, 1, 20)
WHY = Reason("load", "test")


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> tuple[Spec, Deployment]:
    tmp_path = tmp_path_factory.mktemp("shop")
    (tmp_path / "catalog.csv").write_text(CATALOG)
    (tmp_path / "profiles.csv").write_text(PROFILES)
    path = tmp_path / "service.yaml"
    path.write_text(SPEC)
    spec = load_spec(path)
    made = deploy(spec, path, None, (), nullcontext)[1]
    return spec, msgspec.json.decode(msgspec.json.encode(made), type=Deployment)  # as the head reads it


def question(per_min: float, *measured: Measured) -> Solve:
    return Solve(1, Workload((RequestClass("shop", SHAPE, per_min / 60),)), WHY, measured)


def test_resources_memory_and_timings_say_who_may_run_where(shop: tuple[Spec, Deployment]) -> None:
    request = shop[1].request
    assert request is not None
    known = Known(request)
    assert known.fits["L4"] == {(ENCODE,), (DECODE,), (ENCODE, DECODE)}, "30 GiB do not fit on an L4"
    assert known.fits["H100"] == {(DENOISE,)}, "the spec has encode on L4, and decode was never timed on an H100"
    assert (DENOISE, DECODE) in known.fits["A100"]
    l4 = known.together["L4"]
    assert l4.needs_gib == {ENCODE: 10.0, DECODE: 10.0}, (
        "what each takes, should a dispatch policy want others beside it"
    )
    assert 20.0 < l4.usable_gib < 24.0
    assert l4.holds(frozenset({ENCODE, DECODE}))
    assert known.seconds(DENOISE, "A100", SHAPE) == pytest.approx(1.6)
    assert known.seconds(DECODE, "H100", SHAPE) is None


def test_the_plan_is_within_and_its_bundle_is_seated(shop: tuple[Spec, Deployment]) -> None:
    spec, made = shop
    infos = [ModelInfo("shop", "synthetic", ModelCard(("encode", "denoise", "decode"), "image", "x", defaults={}), 0.0)]
    config, seconds, off = rented_config(spec, role_bounds(spec, infos), made, {}, None)
    assert off == ""
    assert seconds(DENOISE, "H100", SHAPE) == pytest.approx(1.0)
    assert config.fits is not None
    assert (config.mode, config.elastic) == ("hybrid", True)
    assert config.load_s[DENOISE] == 30.0
    assert config.seating is not None
    assert outside(config.fits, config.seating) == ""
    assert config.seating.shared["L4"] == {(ENCODE, DECODE): 1}
    assert lay_out({}, [], bundles={}) == []


def test_what_the_spec_excludes_turns_the_loop_off(shop: tuple[Spec, Deployment]) -> None:
    spec, made = shop
    assert made.request is not None
    strict = msgspec.structs.replace(made.request, profiles=())
    _, _, off = rented_config(spec, (), msgspec.structs.replace(made, request=strict), {}, None)
    assert "may use some of the machines" in off


def test_more_load_is_more_machines_and_beyond_the_budget_as_much_as_it_has(shop: tuple[Spec, Deployment]) -> None:
    request = shop[1].request
    assert request is not None
    renter = Renter(request)
    few, many = (renter.answer(question(rate), ()) for rate in (40.0, 100.0))
    assert isinstance(few.plan, Plan)
    assert isinstance(many.plan, Plan)
    assert few.plan.usd_per_hour < many.plan.usd_per_hour <= 7
    assert (few.share, many.share) == (1.0, 1.0)
    assert {wish.key for wish in many.wishes} == {str(node.offer) for node in many.plan.nodes}
    most = renter.answer(question(2000.0), ())
    assert isinstance(most.plan, Plan)
    assert 0 < most.share < 1
    assert most.plan.usd_per_hour <= 7


def test_what_was_measured_counts_and_what_has_no_capacity_does_not(shop: tuple[Spec, Deployment]) -> None:
    request = shop[1].request
    assert request is not None
    renter = Renter(request)
    slow = renter.answer(
        question(40.0, Measured(DENOISE, "H100", SHAPE, 3.0), Measured(DENOISE, "A100", SHAPE, 1.6)), ()
    )
    assert isinstance(slow.plan, Plan)
    assert {node.offer.accelerator for node in slow.plan.nodes} == {"A100", "L4"}
    a100 = next(str(node.offer) for node in slow.plan.nodes if node.offer.accelerator == "A100")
    without = renter.answer(question(40.0), (), {a100})
    assert isinstance(without.plan, Plan)
    assert {node.offer.accelerator for node in without.plan.nodes} == {"H100", "L4"}
