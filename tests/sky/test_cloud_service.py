"""A service on the simulated EC2: the head on a machine of its own, the laptop reaches it through SSH, and nothing stays."""

import json
import socket
from collections.abc import Iterator

import pytest

from tests.sky.ec2 import Ec2
from tests.sky.shop import QUICK, Shop

pytestmark = [pytest.mark.sky_ec2, pytest.mark.timeout(3600), pytest.mark.slow]

CATALOG = """cloud,region,instance_type,accelerator,count,price,spot_price,max_nodes
aws,us-east-1,g6.xlarge,L4,1,0.805,0.32,2
aws,us-west-2,g6.xlarge,L4,1,0.85,0.35,2
"""
PROFILES = """model,stage,gpu,width,height,frames,steps,seconds,peak_gib,source,load_s
shapes,encode,L4,32,32,1,20,0.05,0.5,measured,10
shapes,denoise,L4,32,32,1,20,0.5,0.5,measured,10
shapes,decode,L4,32,32,1,20,0.05,0.5,measured,10
"""
MORE = "api: {host: 0.0.0.0, public: true, behind_proxy: true}\nlifetime: {dead_man: 60s}"


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory, ec2_session: Ec2) -> Iterator[Shop]:
    """One machine for all three stages, and one for the head."""
    made = Shop(
        "cloud", tmp_path_factory.mktemp("cloud"), model=QUICK, catalog=CATALOG, profiles=PROFILES, rate=20,
        infra="aws/us-east-1", denoise="[L4]", bundles="true", more=MORE, budget=1,
    )  # fmt: skip
    made.up()
    yield made
    done = made.down()
    assert done.returncode == 0, done.stderr
    assert ec2_session.running() == {}


def test_the_head_has_a_machine_to_itself_and_answers_through_ssh(shop: Shop, ec2_session: Ec2) -> None:
    status = shop.status()
    assert status["state"] == "ready"
    nodes = {node["id"]: node for node in status["nodes"]}
    assert set(nodes) == {"n1", "head"}
    assert nodes["head"]["offer"].startswith("aws/us-east-1 m6i.large")
    assert status["usd_per_hour"] == pytest.approx(sum(node["usd_per_hour"] for node in nodes.values()))
    assert len(ec2_session.running()) == 2
    done = shop.cli("generate", shop.name, "a red circle", "-f", str(shop.folder / "one.png"))
    assert done.returncode == 0, done.stderr
    assert (shop.folder / "one.png").stat().st_size > 0
    cost = json.loads(shop.cli("cost", shop.name, "-o", "json").stdout)
    assert {node["id"] for node in cost["nodes"]} == {"n1", "head"}
    assert cost["usd_total"] == pytest.approx(sum(stage["usd"] for stage in cost["stages"]))
    assert "head" in shop.cli("logs", shop.name, "--tail", "5").stdout
    assert shop.cli("scale", shop.name, "denoise=1").returncode == 0


def test_only_what_is_needed_is_open_and_it_answers_from_outside(shop: Shop, ec2_session: Ec2) -> None:
    record = shop.record
    host = record["head"]["host"]
    assert ec2_session.open_ports(host) == {22, 8460, record["hub_port"], record["data_port"], record["enrol_port"]}
    for port in (8460, record["enrol_port"]):
        socket.create_connection((host, port), 10).close()
    assert shop.status()["endpoint"] == f"http://{host}:8460"
    assert len(shop.pictures(range(3), "outside")) == 3


def test_the_head_cannot_reach_what_rents_for_it(shop: Shop) -> None:
    there = shop.on_head
    as_head = ("sudo", "-n", "runuser", "-u", "disagctl-head", "--")
    assert there(*as_head, "bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/46580").returncode != 0
    assert there("bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/46580").returncode == 0
    assert there(*as_head, "ls", "/home/ubuntu/.sky").returncode != 0
    assert there("ls", "/home/ubuntu/.aws/credentials").returncode != 0, "nothing was copied"


def test_up_again_changes_nothing_and_a_head_that_dies_comes_back(shop: Shop, ec2_session: Ec2) -> None:
    machines = set(ec2_session.running())
    shop.up()
    pid = shop.status()["head"]["pid"]
    assert shop.on_head("sudo", "-n", "kill", "-9", str(pid)).returncode == 0
    status = shop.until(lambda s: s["state"] == "ready" and s["head"]["pid"] != pid)
    assert status["requests"]["failed"] == 0
    assert set(ec2_session.running()) == machines


def test_a_preempted_machine_is_replaced_in_another_zone(shop: Shop, ec2_session: Ec2) -> None:
    status = shop.status()
    (node,) = (node for node in status["nodes"] if node["id"] != "head")
    (instance,) = (one for one in ec2_session.running() if ec2_session.tags(one).get("disagctl-node") == node["id"])
    zone = ec2_session.running()[instance]
    ec2_session.capacity(**{f"* {zone}/g6.xlarge": 0})
    ec2_session.preempt(instance)
    status = shop.until(lambda s: s["state"] == "ready" and node["id"] not in {n["id"] for n in s["nodes"]}, 1200)
    assert zone not in [z for one, z in ec2_session.running().items() if "head" not in ec2_session.tags(one).values()]
    assert len(shop.pictures(range(2), "replaced")) == 2
