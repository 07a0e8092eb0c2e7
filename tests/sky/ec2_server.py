"""``python -m tests.sky.ec2_server HOST PORT FOLDER``: moto's AWS, where every EC2 instance has a host of ``ec2_hosts.py``.

FOLDER/capacity.json limits how many instances of a kind may run in a zone: {"spot us-east-1?/*": 0, "*/g6.xlarge": 1};
the first pattern that fits counts. A launch beyond that is answered as EC2 answers it: InsufficientInstanceCapacity.
"""

import base64
import contextlib
import json
import os
import sys
import threading
from fnmatch import fnmatchcase
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml

from tests.sky.catalogs import AWS_ZONES
from tests.sky.ec2_hosts import Hosts

os.environ.update(MOTO_EC2_LOAD_DEFAULT_AMIS="true", MOTO_IAM_LOAD_MANAGED_POLICIES="true")

import boto3
import moto.iam.policy_validation as policies
from moto.ec2.exceptions import EC2ClientError
from moto.ec2.models import instances
from moto.moto_server.threaded_moto_server import ThreadedMotoServer

LIVE = ("pending", "running")


class Insufficient(EC2ClientError):
    """EC2's answer where there is no room."""

    code = 500

    def __init__(self, kind: str, zone: str) -> None:
        words = f"We currently do not have sufficient {kind} capacity in the Availability Zone you requested ({zone})."
        super().__init__("InsufficientInstanceCapacity", words)


class Cloud:
    """Puts hosts behind moto's instances."""

    def __init__(self, folder: Path, endpoint: str) -> None:
        self.hosts = Hosts(folder, endpoint)
        self.capacity = folder / "capacity.json"
        self.lock = threading.RLock()
        self.addresses = iter(f"10.201.{n // 250}.{n % 250 + 2}" for n in range(10, 50_000))

    def install(self) -> None:
        """Patch moto."""
        policies.BaseIAMPolicyValidator.validate = lambda _: (
            None
        )  # stricter than IAM about the policy SkyPilot attaches
        run, backend = instances.InstanceBackend.run_instances, instances.InstanceBackend

        def run_instances(moto: Any, *args: Any, **kwargs: Any) -> Any:
            with self.lock:
                self._check(moto, kwargs)
                reservation = run(moto, *args, **kwargs)
                for instance in reservation.instances:
                    self._boot(instance)
                return reservation

        backend.run_instances = run_instances
        terminate = instances.Instance.terminate

        def terminated(instance: Any, *args: Any, **kwargs: Any) -> Any:
            result = terminate(instance, *args, **kwargs)
            self.hosts.end(instance.id)
            return result

        instances.Instance.terminate = terminated

    def _check(self, moto: Any, asked: dict[str, Any]) -> None:
        kind, zone = asked["instance_type"], asked.get("placement")
        subnets = [asked.get("subnet_id"), *(nic.get("SubnetId") for nic in asked.get("nics") or ())]
        if not zone:
            zone = next((moto.get_subnet(subnet).availability_zone for subnet in subnets if subnet), "")
        limits: dict[str, int] = {}
        with contextlib.suppress(FileNotFoundError):
            limits = json.loads(self.capacity.read_text())
        market = "spot" if asked.get("instance_market_options") else "on-demand"
        place = f"{market} {zone}/{kind}"
        limit = next((limit for pattern, limit in limits.items() if fnmatchcase(place, pattern)), None)
        if limit is None:
            return
        every = [one for reservation in moto.reservations.values() for one in reservation.instances]
        live = [one for one in every if one._state.name in LIVE and (one.instance_type, one.placement) == (kind, zone)]
        if len(live) >= limit:
            raise Insufficient(kind, zone)

    def _boot(self, instance: Any) -> None:
        address = next(self.addresses)
        nic = instance.nics[0]
        nic.public_ip = nic.private_ip_address = address
        instance.security_groups = instance.security_groups or list(nic.group_set)
        for private in nic.private_ip_addresses:
            private["PrivateIpAddress"] = address
        self.hosts.boot(instance.id, address, ssh_keys(instance.user_data))


def ssh_keys(user_data: Any) -> list[str]:
    """The keys in cloud-init's user data, in the clear or in base64."""
    text = user_data.decode() if hasattr(user_data, "decode") else str(user_data or "")
    for decoded in (text, base64.b64decode(text, validate=False).decode(errors="replace")):
        with contextlib.suppress(yaml.YAMLError, TypeError, KeyError, IndexError):
            return [key.strip() for key in yaml.safe_load(decoded)["users"][0]["ssh_authorized_keys"]]
    return []


class Metadata(BaseHTTPRequestHandler):
    """The instance metadata service: SkyPilot's autostop takes its role's credentials from there."""

    def do_PUT(self) -> None:
        self._say("token")

    def do_GET(self) -> None:
        if self.path.rstrip("/").endswith("security-credentials"):
            self._say("skypilot-v1")
        elif "security-credentials" in self.path:
            found = {"Code": "Success", "Type": "AWS-HMAC", "AccessKeyId": "role", "SecretAccessKey": "x", "Token": "t"}
            self._say(json.dumps(found | {"LastUpdated": "2026-01-01T00:00:00Z", "Expiration": "2099-01-01T00:00:00Z"}))
        else:
            self._say("us-east-1")

    def _say(self, text: str) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: Any) -> None:
        """Nothing."""


def open_to_the_world(endpoint: str) -> None:
    """moto's default network has no internet gateway; a real account's has one."""
    for region in AWS_ZONES:
        keys = {"aws_access_key_id": "x", "aws_secret_access_key": "x"}
        ec2 = boto3.client("ec2", region_name=region, endpoint_url=f"http://{endpoint}", **keys)
        network = next(one["VpcId"] for one in ec2.describe_vpcs()["Vpcs"] if one["IsDefault"])
        gateway = ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
        ec2.attach_internet_gateway(InternetGatewayId=gateway, VpcId=network)
        mine = [{"Name": "vpc-id", "Values": [network]}]
        table = ec2.describe_route_tables(Filters=mine)["RouteTables"][0]["RouteTableId"]
        ec2.create_route(RouteTableId=table, DestinationCidrBlock="0.0.0.0/0", GatewayId=gateway)


def main() -> None:
    """Serve until killed."""
    host, port, folder = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    Cloud(folder, f"{host}:{port}").install()
    threading.Thread(target=ThreadingHTTPServer((host, port + 1), Metadata).serve_forever, daemon=True).start()
    ThreadedMotoServer(host, port).start()
    open_to_the_world(f"{host}:{port}")
    (folder / "ready").touch()
    threading.Event().wait()


if __name__ == "__main__":
    main()
