"""A step in the load on real machines: the loop rents for it, gives back when it has passed, keeps the budget, loses nothing.

How long it takes follows from how long this Slurm takes to launch: the loop measures it, and waits accordingly.
"""

import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.sky.shop import Shop, picture
from tests.sky.slurm import Slurm

pytestmark = [pytest.mark.timeout(3000), pytest.mark.usefixtures("healthy"), pytest.mark.slow]

BUDGET = 6.0  # the L4 and two H100: the backlog of the step would like a third
CATALOG = """cloud,region,instance_type,accelerator,count,price,spot_price,max_nodes
slurm,skytest,node,H100,1,2.5,,3
slurm,skytest,node,L4,1,0.7,,2
"""
PROFILES = """model,stage,gpu,width,height,frames,steps,seconds,peak_gib,source,load_s
shapes,encode,L4,32,32,1,20,0.05,0.5,measured,1
shapes,denoise,H100,32,32,1,20,2.0,0.5,measured,1
shapes,decode,L4,32,32,1,20,0.05,0.5,measured,1
"""
SPEC = f"""
name: step
model:
  name: shapes
  id: synthetic
  stages:
    encode: {{seconds: 0.05, load_s: 1}}
    denoise: {{seconds: 2.0, steps: 20, load_s: 1}}
    decode: {{seconds: 0.05, load_s: 1}}
workload: {{rate: 8/min, shapes: [{{size: 32x32, steps: 20}}]}}
slo: {{p95: 30s}}
infra: slurm/skytest
budget: {{max_usd_per_hour: {BUDGET}}}
catalog: catalog.csv
profiles: profiles.csv
policy: {{interval: 2s}}
stages:
  encode: {{resources: {{accelerators: [L4]}}}}
  denoise: {{resources: {{accelerators: [H100]}}}}
  decode: {{resources: {{accelerators: [L4]}}}}
"""


class Customers:
    """Ask for a picture so many times a minute, whatever the service does; each wants its picture in the end."""

    def __init__(self, shop: Shop, url: str, token: str) -> None:
        self.per_min = 0.0
        self.asked: list[Future[bytes]] = []
        self._shop = shop
        self._client = httpx.Client(base_url=url, timeout=600.0, headers={"Authorization": f"Bearer {token}"})
        self._pool = ThreadPoolExecutor(256)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._ask)
        self._thread.start()

    def _ask(self) -> None:
        while not self._over.wait(60.0 / self.per_min if self.per_min else 1.0):
            if self.per_min:
                self.asked.append(self._pool.submit(picture, self._client, len(self.asked), "step"))

    def end(self) -> list[bytes]:
        """What they got."""
        self._over.set()
        self._thread.join()
        try:
            return [one.result(timeout=300.0) for one in self.asked]
        finally:
            self._pool.shutdown(cancel_futures=True)
            self._client.close()


@pytest.fixture
def shop(tmp_path: Path, slurm: Slurm) -> Iterator[Shop]:
    """The service, up; whatever it has is taken away in the end."""
    made = Shop("step", tmp_path, catalog=CATALOG)
    (tmp_path / "profiles.csv").write_text(PROFILES)
    made.spec.write_text(SPEC)
    try:
        made.up()
        yield made
    finally:
        if (made.home / "services" / made.name).exists():
            assert made.down().returncode == 0
    assert [job for job in slurm.jobs() if "dis-" in job] == []


class Seen:
    """Every look at the service, and the feed as it grew."""

    def __init__(self, shop: Shop) -> None:
        self._shop = shop
        self._begun = time.monotonic()
        self.dearest = 0.0
        self.feed: dict[int, str] = {}

    def until(self, what: Any, limit_s: float) -> dict[str, Any]:
        end = time.monotonic() + limit_s
        while time.monotonic() < end:
            status = self._shop.status()
            self.dearest = max(self.dearest, status["usd_per_hour"])
            for event in status["events"]:
                if event["seq"] not in self.feed:
                    self.feed[event["seq"]] = f"{event['kind']}: {event['why']}"
                    print(f"{time.monotonic() - self._begun:6.1f} s  {self.feed[event['seq']]}", flush=True)
            if what(status):
                return status
            time.sleep(2.0)
        raise AssertionError(f"not within {limit_s} s: {json.dumps(self._shop.status())[:4000]}\n{self.feed}")

    def said(self, kind: str) -> list[str]:
        return [text.removeprefix(f"{kind}: ") for text in self.feed.values() if text.startswith(f"{kind}:")]


def denoisers(status: dict[str, Any]) -> int:
    """Ready ones."""
    return next(stage["ready"] for stage in status["stages"] if stage["stage"] == "denoise")


def up_nodes(status: dict[str, Any]) -> list[str]:
    return sorted(node["accelerator"] for node in status["nodes"] if node["state"] == "up")


def test_a_step_in_the_load_rents_machines_and_gives_them_back(shop: Shop) -> None:
    seen = Seen(shop)
    assert up_nodes(seen.until(lambda s: s["state"] == "ready", 60)) == ["H100", "L4"]
    record = shop.record
    url = f"http://{record['http_host']}:{record['http_port']}"
    customers = Customers(shop, url, shop.cli("token", shop.name).stdout.strip())
    try:
        customers.per_min = 45.0
        seen.until(lambda s: denoisers(s) == 2, 900)
        assert seen.said("nodes"), "and says why"
        customers.per_min = 6.0
        status = seen.until(lambda s: [n["accelerator"] for n in s["nodes"]].count("H100") == 1, 1800)
        assert denoisers(status) == 1
    finally:
        got = customers.end()
    assert all(got)
    status = seen.until(lambda s: s["requests"]["running"] + s["requests"]["queued"] == 0, 60)
    assert status["requests"]["failed"] == status["requests"]["cancelled"] == 0
    assert status["requests"]["succeeded"] == len(got)
    assert 5.0 < seen.dearest <= BUDGET
    assert seen.said("node_draining")
