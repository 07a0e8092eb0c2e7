"""The simulated EC2: up, down, and what a cloud does to its customers."""

import json
import os
import sys
from pathlib import Path

from tests.sky.catalogs import AWS_ZONES, write_catalogs
from tests.sky.daemons import wait_for
from tests.sky.ec2_hosts import GATEWAY, Hosts
from tests.sky.needs import EC2 as COMMANDS
from tests.sky.needs import install, why_not
from tests.sky.site import Site, sky_command

PORT = 5566
CREDENTIALS = """\
[default]
aws_access_key_id = testing
aws_secret_access_key = testing
endpoint_url = http://{endpoint}
"""
CONFIG = "[default]\nregion = us-east-1\nendpoint_url = http://{endpoint}\n"


class Ec2:
    """One EC2 below a site of its own."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.base = site.ec2
        self.endpoint = f"{GATEWAY}:{PORT}"
        self.hosts = Hosts(self.base, self.endpoint)

    @staticmethod
    def why_not() -> str | None:
        """The reason that it cannot run here."""
        return why_not(COMMANDS, ("sky", "uv", "psutil", "moto", "boto3", "flask"))

    def up(self) -> None:
        """Bring up what is not; the image takes minutes the first time."""
        install(COMMANDS)
        self.base.mkdir(parents=True, exist_ok=True)
        self.hosts.prepare()
        aws = self.site.home / ".aws"
        aws.mkdir(parents=True, exist_ok=True)
        (aws / "credentials").write_text(CREDENTIALS.format(endpoint=self.endpoint))  # the file that SkyPilot uploads
        (aws / "config").write_text(CONFIG.format(endpoint=self.endpoint))
        write_catalogs(self.site.home)
        if not self.is_up():
            (self.base / "ready").unlink(missing_ok=True)
            root = Path(__file__).resolve().parents[2]
            environment = os.environ | self.site.environment() | {"PYTHONPATH": str(root)}
            command = [sys.executable, "-m", "tests.sky.ec2_server", GATEWAY, str(PORT), str(self.base)]
            self.hosts.daemons.start("server", command, environment)
        wait_for("the EC2 answers", (self.base / "ready").exists, 120)
        self.site.start_api()

    def down(self) -> None:
        """Take everything away again."""
        if (self.site.home / ".sky").exists():
            self.site.run(sky_command(), "api", "stop", check=False)
        self.hosts.daemons.kill("server")
        self.hosts.remove()
        self.site.tidy()

    def is_up(self) -> bool:
        """Whether it runs."""
        return self.hosts.daemons.find("server") is not None

    def capacity(self, **limits: int) -> None:
        """How many may run: ``{"* us-east-1a/p5.4xlarge": 1, "spot us-west-2?/*": 0}``; no entry, no limit."""
        (self.base / "capacity.json").write_text(json.dumps(limits))

    def running(self) -> dict[str, str]:
        """Zone of every instance that runs."""
        return {
            one["InstanceId"]: one["Placement"]["AvailabilityZone"]
            for region in AWS_ZONES
            for reservation in self._client(region).describe_instances()["Reservations"]
            for one in reservation["Instances"]
            if one["State"]["Name"] in ("pending", "running")
        }

    def tags(self, instance: str) -> dict[str, str]:
        """What an instance is labelled with."""
        filters = [{"Name": "resource-id", "Values": [instance]}]
        found = self._client(self.running()[instance][:-1]).describe_tags(Filters=filters)["Tags"]
        return {one["Key"]: one["Value"] for one in found}

    def open_ports(self, address: str) -> set[int]:
        """What the world may connect to on the instance with this address."""
        found: set[int] = set()
        for region in AWS_ZONES:
            client = self._client(region)
            instances = [
                one
                for reservation in client.describe_instances()["Reservations"]
                for one in reservation["Instances"]
                if one.get("PublicIpAddress") == address or one.get("PrivateIpAddress") == address
            ]
            groups = [group["GroupId"] for one in instances for group in one["SecurityGroups"]]
            for group in client.describe_security_groups(GroupIds=groups)["SecurityGroups"] if groups else ():
                for rule in group["IpPermissions"]:
                    if any(span["CidrIp"] == "0.0.0.0/0" for span in rule["IpRanges"]):
                        found |= set(range(rule["FromPort"], rule["ToPort"] + 1))
        return found

    def preempt(self, instance: str) -> None:
        """Take a machine away, as a spot market does."""
        region = self.running()[instance][:-1]
        self._client(region).terminate_instances(InstanceIds=[instance])

    def _client(self, region: str):
        import boto3

        keys = {"aws_access_key_id": "x", "aws_secret_access_key": "x"}
        return boto3.client("ec2", region_name=region, endpoint_url=f"http://{self.endpoint}", **keys)
