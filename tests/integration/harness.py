"""A service under test: real processes, a home of its own, HTTP from outside. For tests that kill things."""

import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil

from disagctl import lifecycle
from disagctl.admin_client import head_status
from disagctl.precheck import free_ports
from disagctl.spec import parse_spec
from disagctl.state import ServicePaths, ServiceRecord, paths, read_record
from disagctl.views import StatusView, WorkerView
from planner.run.rent import Deployment

SYNTHETIC = """
name: {name}
model:
  id: synthetic
  stages:
    encode: {{seconds: 0.02, out_bytes: {encode_bytes}}}
    denoise: {{seconds: 0.1, steps: 5, out_bytes: {denoise_bytes}, crash_prompt: POISON}}
    decode: {{seconds: 0.05, artifact_bytes: {artifact_bytes}}}
workload: {{rate: 1/s, shapes: [{{size: 64x64}}]}}
infra: local
stages: {{encode: {{replicas: 2}}, denoise: {{replicas: 3}}, decode: {{replicas: 2}}}}
transport: {{mode: {mode}}}
pipeline: {{encoder_cache: false}}
"""


class Service:
    """One running service."""

    def __init__(self, text: str, home: Path, ready_s: float = 120.0, deployment: Deployment | None = None) -> None:
        self.text, self.home, self.ready_s, self.deployment = text, home, ready_s, deployment
        self.spec = parse_spec(text, base=home)
        self.record: ServiceRecord = self.up()

    @property
    def where(self) -> ServicePaths:
        """Its folder."""
        return paths(self.spec.name)

    @property
    def url(self) -> str:
        """Its endpoint."""
        return f"http://{self.record.http_host}:{self.record.http_port}"

    def up(self) -> ServiceRecord:
        """Bring it up, or up again."""
        self.record = lifecycle.up(
            self.spec, wait_s=self.ready_s, on_progress=lambda _status: None, deployment=self.deployment
        )
        return self.record

    def down(self) -> None:
        """Take it down."""
        lifecycle.down(self.spec.name, discard=True, on_progress=lambda _line: None)

    def status(self) -> StatusView:
        """From its head."""
        status = head_status(self.where)
        assert status is not None
        return status

    def head_pid(self) -> int:
        """The head's process."""
        pid = read_record(self.where).head_pid
        assert pid is not None
        return pid

    def kill_head(self) -> None:
        """SIGKILL, and wait until it is gone."""
        process = psutil.Process(self.head_pid())
        process.kill()
        process.wait(10)

    def kill_worker(self, stage: str, index: int = 0) -> str:
        """SIGKILL one worker of a stage; returns its id."""
        workers = self.workers(stage)
        worker = workers[index % len(workers)]
        os.kill(worker.pid, signal.SIGKILL)
        return worker.id

    def processes(self) -> list[psutil.Process]:
        """Every process of this service that is alive."""
        found: set[psutil.Process] = set()
        marker = str(self.where.root)
        for process in psutil.process_iter(["cmdline", "status"]):
            if any(marker in part for part in process.info["cmdline"] or []):
                found.update((process, *process.children(recursive=True)))
        return list(found)

    def until(self, what: Callable[[StatusView], bool], limit_s: float = 60.0) -> StatusView:
        """Poll the status until it is as wished for."""
        end = time.monotonic() + limit_s
        while time.monotonic() < end:
            status = self.status()
            if what(status):
                return status
            time.sleep(0.05)
        raise AssertionError(f"not within {limit_s} s; the status is {self.status()}")

    def workers(self, stage: str) -> list[WorkerView]:
        """Workers of a stage."""
        return [w for w in self.status().workers if w.stage == stage and w.pid]

    def images(self, seeds: Iterable[int], run: str, **fields: Any) -> dict[int, bytes]:
        """Ask for one picture a seed, all at once; the bytes by seed. Retries while the head is away.

        ``run`` tells runs apart: within one, a repeated request is the same job.
        """
        numbers = list(seeds)
        with httpx.Client(base_url=self.url, timeout=120.0) as client, ThreadPoolExecutor(len(numbers)) as pool:
            made = list(pool.map(lambda seed: self._image(client, seed, run, fields), numbers))
        return dict(zip(numbers, made, strict=True))

    @contextmanager
    def under_way(self, seeds: Iterable[int], run: str, **fields: Any) -> Iterator[Future[dict[int, bytes]]]:
        """The same while the body of the ``with`` does something to the service."""
        with ThreadPoolExecutor(1) as pool:
            yield pool.submit(self.images, list(seeds), run, **fields)

    def _image(self, client: httpx.Client, seed: int, run: str, fields: dict[str, Any]) -> bytes:
        body = {"prompt": "a red circle", "size": "64x64", "seed": seed, "response_format": "url", **fields}
        headers = {"Idempotency-Key": f"{run}-{seed}"}
        for _ in range(300):
            try:
                answer = client.post("/v1/images/generations", json=body, headers=headers)
                if answer.status_code == 200:
                    content = client.get(answer.json()["data"][0]["url"])
                    if content.status_code == 200:
                        return content.content
                elif answer.status_code < 500:
                    raise AssertionError(answer.text)
            except httpx.TransportError:
                pass
            time.sleep(0.1)  # the head is being restarted: this is what a client does
        raise AssertionError(f"no picture for seed {seed}")


@contextmanager
def service(home: Path, text: str, ready_s: float = 120.0, deployment: Deployment | None = None) -> Iterator[Service]:
    """Up, and down whatever happens. ``ready_s``: how long its workers may take to load. ``deployment``: machines that this one
    stands in for."""
    # Homes of their own do not know of each other's services, so a default port could go to another test's meanwhile.
    text += f"\napi: {{port: {free_ports('127.0.0.1', 1, ())[0]}}}\n"
    before = os.environ.get("DISAGCTL_HOME")
    os.environ["DISAGCTL_HOME"] = str(home)
    running: Service | None = None
    try:
        running = Service(text, home, ready_s, deployment)
        yield running
    finally:
        try:
            name = parse_spec(text, base=home).name
            if paths(name).record.exists():
                lifecycle.down(name, discard=True, on_progress=lambda _line: None)
        finally:
            if before is None:
                del os.environ["DISAGCTL_HOME"]
            else:
                os.environ["DISAGCTL_HOME"] = before
