"""The parts of the SkyPilot provisioner that need no SkyPilot."""

from pathlib import Path

import pytest

from disagctl.provision.base import HeadWish, NodeRequest
from disagctl.provision.sky.client import Cluster, Launch, RequestState
from disagctl.provision.sky.failures import LINE_CHARS, as_error, verdict
from disagctl.provision.sky.judge import judge, judge_job
from disagctl.provision.sky.names import Owner, cluster_name, owner
from disagctl.provision.sky.tasks import agent_task, secrets_file, task_of
from planner.domain import Offer


class ResourcesUnavailableError(Exception):
    """SkyPilot's, by name."""

    def __init__(self, words: str, *history: Exception) -> None:
        super().__init__(words)
        self.failover_history = list(history)


class NoCloudAccessError(Exception):
    """SkyPilot's, by name."""


SLURM = Offer("slurm", "c1", "node", "H100", 2, spot=False, usd_per_hour=5.0)
SMALL = Offer("aws", "us-east-1", "m6i.large", "", 0, spot=False, usd_per_hour=0.1)
AWS = Offer("aws", "us-east-1", "g6.xlarge", "L4", 1, spot=True, usd_per_hour=0.3)


def request(*offers: Offer, secrets: tuple[str, ...] = ()) -> NodeRequest:
    return NodeRequest("n1", "0badcafe", "shop", "12345678", offers, b"{}", folders=("/models/x",), secrets=secrets)


def test_a_name_says_whose_it_is() -> None:
    name = cluster_name("12345678", "n12", "0badcafe")
    assert owner(name) == Owner("12345678", "n12", "0badcafe")
    assert owner("somebody-elses") is None
    assert owner(name + "-x") is None


def test_offers_become_ordered_resources() -> None:
    task = agent_task(request(SLURM, AWS), Path("/kit"), Path("/node"), "auto")
    on_slurm, on_aws = task["resources"]["ordered"]
    assert on_slurm["infra"] == "slurm/c1"
    assert on_slurm["accelerators"] == {"H100": 2}
    assert not {"instance_type", "use_spot", "autostop"} & set(on_slurm), "Slurm has none of these"
    assert (on_aws["infra"], on_aws["instance_type"], on_aws["use_spot"]) == ("aws/us-east-1", "g6.xlarge", True)
    assert on_aws["autostop"]["down"] is True
    assert on_aws["labels"] == {"disagctl-service": "12345678", "disagctl-node": "n1", "disagctl-intent": "0badcafe"}


def test_only_what_is_needed_travels() -> None:
    shared = agent_task(request(SLURM), Path("/kit"), Path("/node"), "core")
    assert shared["file_mounts"] == {"~/disagctl/kit": "/kit", "~/disagctl/bootstrap.json": "/node/bootstrap.json"}
    rented = agent_task(request(AWS, secrets=("HF_TOKEN",)), Path("/kit"), Path("/node"), "core")
    assert rented["file_mounts"]["/models/x"] == "/models/x"
    assert rented["file_mounts"]["~/disagctl/secrets.env"] == "/node/secrets.env"
    assert "secrets" not in rented


def test_a_secret_is_only_ever_a_value() -> None:
    assert secrets_file({"HF_TOKEN": "a'b; $(rm -rf /)\n"}) == b"HF_TOKEN='a'\"'\"'b; $(rm -rf /)\n'\n"


@pytest.mark.parametrize(
    ("error", "failure", "tried"),
    [
        (ResourcesUnavailableError("none", Exception("\x1b[33mzone a:\x1b[0m no\nx"), Exception("b")), "no_capacity", 2),
        (ResourcesUnavailableError("no place has it. Run 'sky check' to check the enabled clouds"), "impossible", 0),
        (ResourcesUnavailableError("none", Exception("VcpuLimitExceeded: your quota is 0")), "quota", 1),
        (ResourcesUnavailableError("none", Exception("quota"), Exception("no capacity")), "no_capacity", 2),
        (ResourcesUnavailableError("Task requires aws which is not enabled. Run sky check"), "credentials", 0),
        (NoCloudAccessError("no cloud"), "credentials", 0),
        (RuntimeError("ssh broke"), None, 0),
    ],
)  # fmt: skip
def test_failures_are_told_apart(error: Exception, failure: str | None, tried: int) -> None:
    found = verdict(error)
    assert (found.failure, len(found.tried)) == (failure, tried)
    assert all("\x1b" not in line and len(line) <= LINE_CHARS for line in (found.why, *found.tried))
    assert as_error(found, "n1").exit_code == {"credentials": 6, "quota": 6, None: 1}.get(failure, 4)


UP, INIT, HALF, STOPPED = (
    Cluster("c", "UP", True, None),
    Cluster("c", "INIT", True, None),
    Cluster("c", "INIT", False, None),
    Cluster("c", "STOPPED", True, None),
)


@pytest.mark.parametrize(
    ("launch", "cluster", "ran", "finding"),
    [
        ("running", None, False, "launching"),
        ("running", HALF, False, "launching"),
        ("failed", HALF, False, "ask_launch"),
        ("failed", None, False, "ask_launch"),
        ("succeeded", None, False, "gone"),
        (None, None, True, "gone"),
        ("succeeded", UP, False, "ask_job"),
        (None, UP, True, "up"),
        (None, INIT, True, "up"),  # SkyPilot's runtime does not answer: that says nothing of the agent
        (None, HALF, False, "ended"),
        (None, STOPPED, True, "ended"),
    ],
)
def test_what_state_a_node_is_in(launch: RequestState | None, cluster: Cluster | None, ran: bool, finding: str) -> None:
    asked = None if launch is None else Launch("r", "c", launch)
    assert judge(asked, cluster, ran=ran) == finding


def test_what_its_job_tells() -> None:
    said = [None, "INIT", "SETTING_UP", "RUNNING", "FAILED_SETUP", "SUCCEEDED"]
    assert [judge_job(status) for status in said] == ["launching"] * 3 + ["up", "ended", "ended"]


def test_the_head_s_machine_opens_only_what_is_needed() -> None:
    wish = HeadWish((1, 2, 3), ("aws", "gcp"), "core")
    made = NodeRequest("head", "0badcafe", "shop", "12345678", (SMALL,), b"", ("/models/x",), ("HF_TOKEN",), head=wish)
    task = task_of(made, Path("/kit"), Path("/node"), "auto")
    (resources,) = task["resources"]["ordered"]
    assert (resources["ports"], resources["instance_type"]) == ([1, 2, 3], "m6i.large")
    assert resources["autostop"]["down"] is True
    assert "accelerators" not in resources
    assert (task["envs"]["DISAGCTL_EXTRA"], task["envs"]["DISAGCTL_AGENTS"]) == ("sky:aws,gcp", "core")
    assert task["file_mounts"] == {
        "~/disagctl/kit": "/kit",
        "~/disagctl/secrets.env": "/node/secrets.env",
        "~/disagctl/models/0": "/models/x",
    }
