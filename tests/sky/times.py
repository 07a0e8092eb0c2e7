"""``python -m tests.sky.times``: how long up, replace and down take on the Slurm, and whose time that is. One JSON line each.

skypilot: from our asking until the agent talks, without the installation. install: of the libraries, where the node did that.
load: imports and weights, as the slowest worker tells. ours: the rest, planning and Python's start included. A replacement
counts from the provider's word that the machine is gone: ``gone`` seconds after its silence was noticed.
"""

import json
import re
import sqlite3
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.sky.shop import Shop
from tests.sky.site import Site
from tests.sky.slurm import Slurm

INSTALLED = re.compile(r"installed the libraries into \S+: (\d+) s")


def rows(shop: Shop, sql: str) -> list[Any]:
    """From the service's store, which is read while its head runs."""
    store = shop.home / "services" / shop.name / "ledger.db"
    with sqlite3.connect(f"file:{store}?mode=ro", uri=True) as db:
        return db.execute(sql).fetchall()


def last(shop: Shop, kind: str, after: float) -> float:
    """When the last event of a kind happened."""
    return max(at for at, what in rows(shop, "SELECT at, kind FROM events") if what == kind and at >= after)


def installed_s(after: float) -> float:
    """What the slowest node took to install the libraries; 0 where they were there."""
    logs = (path for path in (Site().slurm / "home").rglob("*.log") if path.stat().st_mtime >= after)
    found = (INSTALLED.search(path.read_text(errors="replace")) for path in logs)
    return max((float(match[1]) for match in found if match), default=0.0)


def split(shop: Shop, began: float, ended: float) -> dict[str, float]:
    """Of the time from ``began`` (wall clock) on, the parts."""
    made = {name: at for name, at in rows(shop, "SELECT id, created_at FROM nodes") if at >= began}
    asked = min(made.values())
    talks, ready = last(shop, "node_up", began), last(shop, "worker_ready", began)
    load = max(worker["load_s"] or 0.0 for worker in shop.status()["workers"] if worker["node"] in made)
    install = installed_s(began)
    parts = {"total": ended - began, "skypilot": talks - asked - install, "install": install, "load": load}
    parts["ours"] = (asked - began) + max(0.0, ready - talks - load) + max(0.0, ended - ready)
    return {name: round(value, 1) for name, value in parts.items()}


def whole(status: dict[str, Any], without: str = "") -> bool:
    """Ready, on four machines that are up and have a worker each."""
    up = [node["id"] for node in status["nodes"] if node["state"] == "up"]
    workers = sum(stage["ready"] for stage in status["stages"])
    return status["state"] == "ready" and len(up) == 4 == workers and without not in up


def main() -> None:
    """On a Slurm that is up, or is brought up for it."""
    slurm = Slurm(Site())
    ours = not slurm.is_up()
    slurm.up()
    with tempfile.TemporaryDirectory() as folder:
        shop = Shop("times", Path(folder))
        try:
            began = time.time()
            shop.up()
            print(json.dumps({"what": "up", **split(shop, began, time.time())}), flush=True)
            node = next(n for n in shop.until(whole)["nodes"] if n["accelerator"] == "H100")
            host = next(job.split()[1] for job in slurm.jobs() if node["provider_id"] in job)
            began = time.time()
            slurm.kill_node(host)
            shop.until(lambda status: whole(status, node["id"]), 900)
            noticed, lost = (last(shop, kind, began) - began for kind in ("node_silent", "node_lost"))
            since = split(shop, began + lost, time.time())
            parts = {"what": "replace", "noticed": round(noticed, 1), "gone": round(lost - noticed, 1), **since}
            print(json.dumps(parts), flush=True)
        finally:
            began = time.monotonic()
            done = shop.down()
            print(json.dumps({"what": "down", "total": round(time.monotonic() - began, 1), "exit": done.returncode}))
            slurm.mend()
            if ours:
                slurm.down()
    sys.exit(done.returncode)


if __name__ == "__main__":
    main()
