"""A service on rented machines, driven from the command line as a user does."""

import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx

from tests.sky.site import Site

REPO = Path(__file__).resolve().parents[2]
MODEL = REPO / "examples" / "shapes" / "model"
CATALOG = """cloud,region,instance_type,accelerator,count,price,spot_price,max_nodes
slurm,skytest,node,H100,1,2.5,,1
slurm,skytest,node,A100,1,1.5,,1
slurm,skytest,node,L4,1,0.7,,2
"""
PROFILES = """model,stage,gpu,width,height,frames,steps,seconds,peak_gib,source,load_s
shapes,encode,L4,32,32,1,20,0.05,0.5,measured,10
shapes,denoise,H100,32,32,1,20,1.0,0.5,measured,10
shapes,denoise,A100,32,32,1,20,1.6,0.5,measured,10
shapes,decode,L4,32,32,1,20,0.05,0.5,measured,10
"""
SPEC = """
name: {name}
model: {model}
workload: {{rate: {rate}/min, shapes: [{{size: 32x32, steps: 20}}]}}
infra: {infra}
budget: {{max_usd_per_hour: {budget}}}
catalog: catalog.csv
profiles: profiles.csv
bundles: {bundles}
{more}
stages:
  encode: {{resources: {{accelerators: [L4]}}}}
  denoise: {{resources: {{accelerators: {denoise}}}}}
  decode: {{resources: {{accelerators: {decode}}}}}
"""
SHAPES = f"{{name: shapes, id: {MODEL}}}"
QUICK = (
    "{name: shapes, id: synthetic, stages: {encode: {seconds: 0.05}, denoise: {seconds: 0.1}, decode: {seconds: 0.05}}}"
)
PROMPTS = [
    f"a {size} {colour} circle on a white background"
    for size in ("big", "small")
    for colour in ("red", "blue", "green")
]


class Shop:
    """One service in a state directory of its own, below the site's home."""

    def __init__(self, name: str, folder: Path, **spec: Any) -> None:
        self.name, self.folder = name, folder
        self.home = Site().home / f"of-{name}"
        self.home.mkdir(mode=0o700, exist_ok=True)
        folder.mkdir(exist_ok=True)
        (folder / "catalog.csv").write_text(spec.pop("catalog", CATALOG))
        (folder / "profiles.csv").write_text(spec.pop("profiles", PROFILES))
        self.spec = folder / "service.yaml"
        fields = {
            "rate": 70,
            "infra": "slurm/skytest",
            "budget": 10,
            "denoise": "[H100, A100]",
            "model": SHAPES,
            "decode": "[L4]",
        }
        fields |= {"decode": "[L4]", "bundles": "false", "more": ""} | spec
        self.spec.write_text(SPEC.format(name=name, **fields))

    def cli(self, *args: str, timeout: float = 1800.0) -> "subprocess.CompletedProcess[str]":
        """One command; what it printed is kept."""
        return subprocess.run(
            self.command(*args), env=self.environment(), cwd=self.folder, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=timeout, check=False,
        )  # fmt: skip

    def start(self, *args: str) -> "subprocess.Popen[bytes]":
        """One command, not waited for."""
        with (self.folder / "started.log").open("ab") as log:
            return subprocess.Popen(
                ["env", "--default-signal=INT", *self.command(*args)],  # a shell's background jobs ignore it
                env=self.environment(),
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    @staticmethod
    def command(*args: str) -> list[str]:
        """Its argv."""
        return [sys.executable, "-m", "disagctl.cli.main", *args]

    def environment(self) -> dict[str, str]:
        """The site's SkyPilot, our own state."""
        return os.environ | Site().environment() | {"DISAGCTL_HOME": str(self.home)}

    def on_head(self, *words: str) -> "subprocess.CompletedProcess[str]":
        """A command on the head's own machine, as that machine's user."""
        head, folder = self.record["head"], self.home / "services" / self.name
        options = ["-F", "none", "-i", folder / "head.key", "-o", f"UserKnownHostsFile={folder / 'head.known_hosts'}"]
        target = [f"{head['user']}@{head['host']}", "--", shlex.join(words)]
        return subprocess.run(
            ["ssh", *map(str, options), "-o", "BatchMode=yes", *target], stdin=subprocess.DEVNULL, capture_output=True,
            text=True, timeout=60, check=False,
        )  # fmt: skip

    def up(self, *more: str) -> "subprocess.CompletedProcess[str]":
        """Up and ready, or it fails here with what was said."""
        done = self.cli("up", str(self.spec), "-y", *more)
        assert done.returncode == 0, done.stderr[-3000:]
        return done

    def down(self) -> "subprocess.CompletedProcess[str]":
        """Down, whatever there is."""
        return self.cli("down", self.name, "-y", "--discard")

    def status(self) -> dict[str, Any]:
        """``status -o json``; nothing where there is no such service yet."""
        return json.loads(self.cli("status", self.name, "-o", "json").stdout or "{}")

    @property
    def record(self) -> dict[str, Any]:
        """service.json."""
        return json.loads((self.home / "services" / self.name / "service.json").read_text())

    def events(self, kind: str) -> list[str]:
        """What the head has said of a kind, lately."""
        return [event["why"] for event in self.status()["events"] if event["kind"] == kind]

    def until(self, what: Callable[[dict[str, Any]], bool], limit_s: float = 300.0) -> dict[str, Any]:
        """Poll the status until it is as wished for."""
        end = time.monotonic() + limit_s
        while time.monotonic() < end:
            status = self.status()
            if what(status):
                return status
            time.sleep(2.0)
        raise AssertionError(f"not within {limit_s} s: {json.dumps(self.status())[:4000]}")

    def pictures(self, seeds: Iterable[int], run: str) -> dict[int, bytes]:
        """One picture a seed, all asked for at once."""
        numbers = list(seeds)
        record = self.record
        url = f"http://{record['http_host']}:{record['http_port']}"
        token = self.cli("token", self.name).stdout.strip() if record["infra"] != ["local"] else "none"
        with (
            httpx.Client(base_url=url, timeout=120.0, headers={"Authorization": f"Bearer {token}"}) as client,
            ThreadPoolExecutor(8) as pool,
        ):
            return dict(zip(numbers, pool.map(lambda seed: picture(client, seed, run), numbers), strict=True))


def up_nodes(status: dict[str, Any]) -> list[dict[str, Any]]:
    """Machines that are there."""
    return [node for node in status["nodes"] if node["state"] == "up"]


def whole(status: dict[str, Any]) -> bool:
    """Ready, on as many machines as were wished for."""
    return status["state"] == "ready" and len(up_nodes(status)) == 4 == len(status["nodes"])


def picture(client: httpx.Client, seed: int, run: str) -> bytes:
    """Ask until there is one; asking again is the same request."""
    body = {"prompt": PROMPTS[seed % len(PROMPTS)], "size": "32x32", "seed": seed, "response_format": "url"}
    for _ in range(600):
        try:
            answer = client.post("/v1/images/generations", json=body, headers={"Idempotency-Key": f"{run}-{seed}"})
            if answer.status_code == 200:
                content = client.get(answer.json()["data"][0]["url"])
                if content.status_code == 200:
                    return content.content
            elif answer.status_code < 500:
                raise AssertionError(answer.text)
        except httpx.TransportError:
            pass
        time.sleep(0.2)  # the head is away, or no worker is: this is what a client does
    raise AssertionError(f"no picture for seed {seed}")


def local_spec(folder: Path) -> Mapping[str, str]:
    """The same model on this machine, for the bytes to compare with."""
    text = f"""
name: local-shop
model: {{name: shapes, id: {MODEL}}}
workload: {{rate: 70/min, shapes: [{{size: 32x32, steps: 20}}]}}
infra: local
"""
    path = folder / "local.yaml"
    path.write_text(text)
    return {"path": str(path), "name": "local-shop"}
