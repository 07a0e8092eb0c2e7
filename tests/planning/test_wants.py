"""stages.*.resources, quotas and shares: each key of the spec changes the plan, or is refused or named."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from disagctl.errors import InfeasibleError, SpecError
from disagctl.planning.catalogs import RowFacts
from disagctl.planning.gather import Inputs, gather
from disagctl.planning.wants import wants_of
from disagctl.spec import load_spec
from disagctl.spec.schema import Resources
from planner.domain import Offer
from planner.plan import Plan, plan
from tests.planning.conftest import SPEC, Cli, Shop

PRICES = """\
cloud,region,instance_type,accelerator,count,price,spot_price,max_nodes,cpus,memory_gib
acme,here,small,L4,1,0.5,0.2,8,4,16
acme,there,small,L4,1,0.6,,8,4,16
acme,here,big,H100,1,3.0,1.5,8,24,200
acme,there,pair,H100,2,6.5,,8,48,
slurm,room,node,H100,8,0,,2,64,512
"""


def inputs(shop: Shop, text: str = "", infra: str = "[acme]") -> Inputs:
    shop.write(shop.prices, PRICES)
    shop.write(shop.spec, SPEC.replace("[acme]", infra) + text)
    return gather(load_spec(shop.spec), shop.spec)


def solved(found: Inputs) -> Plan:
    made = plan(found.request, time_limit_s=10, alternatives=False)
    assert isinstance(made, Plan), made
    assert not [text for text in made.warnings if "CHECK" in text]
    return made


def machines(made: Plan, stage: str) -> set[str]:
    return {
        f"{row.offer.cloud}/{row.offer.region}/{row.offer.instance_type}{'/spot' if row.offer.spot else ''}"
        for row in made.rows
        if stage in row.stage.split("+")
    }


@pytest.mark.parametrize(
    ("resources", "allowed"),
    [
        ("{region: there}", {"acme/there/small", "acme/there/pair"}),
        ("{infra: acme/there}", {"acme/there/small", "acme/there/pair"}),
        ("{cloud: slurm}", {"slurm/room/node"}),
        ("{infra: '*/here', use_spot: false}", {"acme/here/small", "acme/here/big"}),
        ("{instance_type: pair}", {"acme/there/pair"}),
        ("{accelerators: 'H100:2'}", {"acme/there/pair"}),
        ("{accelerators: {H100: 8}}", {"slurm/room/node"}),
        ("{accelerators: ['H100:1', 'L4'], use_spot: true}", {"acme/here/big/spot", "acme/here/small/spot"}),
        ("{cpus: 20+, cloud: acme, use_spot: false}", {"acme/here/big", "acme/there/pair"}),
        ("{cpus: 24, cloud: acme, use_spot: true}", {"acme/here/big/spot"}),
        ("{memory: 100+, max_hourly_cost: 2}", {"acme/here/big/spot", "slurm/room/node"}),
        ("{max_hourly_cost: 0.3, cloud: acme}", {"acme/here/small/spot"}),
        ("{any_of: [{instance_type: pair}, {accelerators: L4, use_spot: true}]}", {"acme/there/pair", "acme/here/small/spot"}),
        ("{region: here, ordered: [{instance_type: big, use_spot: false}, {infra: acme/there}]}",
         {"acme/here/big", "acme/there/small", "acme/there/pair"}),
    ],
)  # fmt: skip
def test_a_stage_runs_only_where_its_resources_allow(shop: Shop, resources: str, allowed: set[str]) -> None:
    found = inputs(
        shop, f"stages: {{denoise: {{resources: {resources}}}}}\nplacement: {{cross_cloud: true}}\n", "[acme, slurm]"
    )
    (rule,) = found.request.rules
    open_to = {
        f"{o.cloud}/{o.region}/{o.instance_type}{'/spot' if o.spot else ''}"
        for o in found.request.offers
        if (rule.kinds is None or o.kind in rule.kinds)
        and (rule.accelerators is None or o.accelerator in rule.accelerators)
        and rule.spot in {None, o.spot}
    }
    assert open_to == allowed
    assert machines(solved(found), "denoise") <= allowed


def test_other_stages_are_not_bound(shop: Shop) -> None:
    made = solved(inputs(shop, "stages: {denoise: {resources: {instance_type: pair}}}\nbundles: false\n"))
    assert machines(made, "denoise") == {"acme/there/pair"}
    assert machines(made, "encode") != {"acme/there/pair"}


@pytest.mark.parametrize(
    ("resources", "word"),
    [
        ({"accelerators": "H1000"}, "did you mean 'H100'"),
        ({"accelerators": "K80"}, "not planned for"),
        ({"accelerators": "H100:0"}, "at least 1"),
        ({"accelerators": []}, "empty"),
        ({"cpus": "many"}, "8+"),
        ({"memory": "4x"}, "memory"),
        ({"infra": "aws/us-east-1", "region": "us-west-2"}, "infra excludes"),
        ({"infra": "a/b/c/d"}, "CLOUD/REGION/ZONE"),
        ({"any_of": [{}], "ordered": [{}]}, "exclude"),
    ],
)
def test_resources_that_mean_nothing(resources: dict[str, Any], word: str) -> None:
    with pytest.raises(ValueError, match=re.escape(word)):
        wants_of(Resources(**resources))


def test_what_a_catalog_does_not_say_is_not_held_against_an_offer() -> None:
    (want,) = wants_of(Resources(cpus="8+", memory="64+"))
    offer = Offer("acme", "here", "big", "H100", 1, False, 3.0)
    assert want.admits(offer, RowFacts())
    assert not want.admits(offer, RowFacts(cpus=4))


def test_no_offer_is_left_for_a_stage(shop: Shop) -> None:
    with pytest.raises(InfeasibleError, match=r"painter\.denoise — none passes stages\.denoise\.resources"):
        inputs(shop, "stages: {denoise: {resources: {accelerators: 'L4:8'}}}\n")


def test_keys_that_no_plan_can_follow_are_named(shop: Shop) -> None:
    resources = "{zone: a, region: here, ordered: [{use_spot: true}, {use_spot: false}]}"
    said = " ".join(inputs(shop, f"stages: {{denoise: {{resources: {resources}}}}}\n").warnings)
    assert "stages.denoise.resources.zone" in said
    assert "stages.denoise.resources.ordered" in said


def test_quotas_and_caps_bind(shop: Shop) -> None:
    free = solved(inputs(shop))
    assert sum(node.nodes for node in free.nodes) > 2
    caps = "quotas: [{accelerator: l4, max_gpus: 2}, {instance_type: big, spot: true, max_nodes: 1}, {region: x, max_gpus: 1}]"
    found = inputs(shop, caps + "\n")
    made = solved(found)
    assert sum(node.nodes for node in made.nodes if node.offer.accelerator == "L4") <= 2
    assert all(node.nodes <= 1 for node in made.nodes if node.offer.instance_type == "big" and node.offer.spot)
    assert [o.max_nodes for o in found.request.offers if o.instance_type == "big"] == [8, 1]
    assert any("service.yaml:10: the quota is of no offer" in text for text in found.warnings)


@pytest.mark.parametrize(
    ("quota", "word"),
    [
        ("{accelerator: H100}", "either max_gpus or max_nodes"),
        ("{max_gpus: 1, max_nodes: 1}", "either max_gpus or max_nodes"),
        ("{max_gpus: 1, instance_type: big}", "goes with max_nodes"),
        ("{max_gpus: 1, accelerator: H1000}", "did you mean 'H100'"),
    ],
)
def test_quotas_that_mean_nothing(shop: Shop, quota: str, word: str) -> None:
    with pytest.raises(SpecError, match=r"service\.yaml:10: ") as caught:
        inputs(shop, f"quotas: [{quota}]\n")
    assert word in str(caught.value)


def test_shares_of_spot(shop: Shop) -> None:
    most = "placement: {max_spot_share: 0, max_pool_share: 0.5}\n"
    found = inputs(shop, most)
    assert (found.request.spot_share, found.request.pool_share) == (0.0, 0.5)
    assert not any(node.offer.spot for node in solved(found).nodes)
    assert any(node.offer.spot for node in solved(inputs(shop)).nodes)


def test_data_between_clouds_has_a_price(shop: Shop) -> None:
    assert inputs(shop).request.egress == ()  # one cloud each request: nothing leaves
    text = "placement: {cross_cloud: true, egress_usd_per_gib: {aws: 0.05}}\n"
    shop.write(shop.prices, PRICES.replace("acme,there", "aws,there").replace("acme,here,big", "gcp,here,big"))
    shop.write(shop.spec, SPEC.replace("[acme]", "[acme, aws, gcp, slurm]") + text)
    found = gather(load_spec(shop.spec), shop.spec)
    prices = {one.cloud: one.usd_per_gib for one in found.request.egress}
    assert prices == {"aws": 0.05, "gcp": 0.12, "slurm": 0.0}
    assert any("leaves acme is not known" in text for text in found.warnings)
    shop.write(shop.spec, SPEC + "placement:\n  egress_usd_per_gib: {awz: 1}\n")
    with pytest.raises(SpecError, match=r"service\.yaml:11: .*did you mean 'aws'"):
        gather(load_spec(shop.spec), shop.spec)


def test_own_machines_may_cost_nothing(shop: Shop, cli: Cli) -> None:
    shop.write(shop.prices, PRICES)
    shop.write(shop.spec, SPEC.replace("[acme]", "[slurm, acme]").replace("6/min", "600/min"))
    code, out, err = cli("plan", str(shop.spec), "-o", "json")
    assert (code, err) == (0, "")
    nodes = {node["offer"]["cloud"]: node["nodes"] for node in json.loads(out)["nodes"]}
    assert nodes["slurm"] == 2  # all that there are, before anything is rented
    shop.write(shop.spec, SPEC.replace("[acme]", "slurm"))
    code, out, _ = cli("plan", str(shop.spec), "-o", "json")
    document = json.loads(out)
    assert (code, document["usd_per_hour"]) == (0, 0.0)
    assert [node["nodes"] for node in document["nodes"]] == [1]
    assert cli("plan", str(shop.spec))[0] == 0
    shop.write(shop.prices, PRICES.replace("0,,2,64", "0,,,64"))
    code, _, err = cli("plan", str(shop.spec))
    assert code == 3
    assert "prices.csv:6: a machine that costs nothing needs max_nodes" in err
    shop.write(shop.prices, PRICES.replace("slurm,room,node,H100,8,0,,2", "k8s,room,node,H100,8,4,,"))
    shop.write(shop.spec, SPEC.replace("[acme]", "kubernetes"))
    code, out, _ = cli("plan", str(shop.spec))
    assert code == 0
    assert "say how many (max_nodes)" in out


def test_several_catalogs(shop: Shop, cli: Cli, tmp_path: Path) -> None:
    shop.write(
        tmp_path / "mine.csv", "".join(PRICES.splitlines(keepends=True)[:1] + PRICES.splitlines(keepends=True)[-1:])
    )
    shop.write(shop.prices, PRICES.replace("slurm,room,node,H100,8,0,,2", "slurm,room,node,H100,8,99,,2"))
    shop.write(
        shop.spec, SPEC.replace("[acme]", "[slurm, acme]").replace("prices.csv", "[mine.csv, prices.csv, shipped]")
    )
    request = gather(load_spec(shop.spec), shop.spec).request
    assert {o.cloud for o in request.offers} == {"slurm", "acme"}
    assert [o.usd_per_hour for o in request.offers if o.cloud == "slurm"] == [0.0]  # the first one's price
    code, out, _ = cli(
        "plan", str(shop.spec), "--catalog", f"{tmp_path / 'mine.csv'},shipped", "--infra", "slurm", "-o", "json"
    )
    assert code == 0
    assert "mine.csv and the shipped snapshot" in json.loads(out)["prices"]["from"]
