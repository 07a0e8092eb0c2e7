"""A service under test: real processes, a home of its own, HTTP from outside. For tests that kill things."""

import asyncio
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil

from disagctl import lifecycle
from disagctl.admin_client import head_status
from disagctl.spec import parse_spec
from disagctl.state import ServicePaths, ServiceRecord, paths, read_record
from disagctl.views import StatusView

SYNTHETIC = """
name: {name}
model:
  id: synthetic
  stages:
    encode: {{seconds: 0.02, out_bytes: {encode_bytes}}}
    denoise: {{seconds: 0.1, steps: 5, out_bytes: {denoise_bytes}}}
    decode: {{seconds: 0.05, artifact_bytes: {artifact_bytes}}}
workload: {{rate: 1/s, shapes: [{{size: 64x64}}]}}
infra: local
stages: {{encode: {{replicas: 2}}, denoise: {{replicas: 3}}, decode: {{replicas: 2}}}}
transport: {{mode: {mode}}}
"""


class Service:
    """One running service."""

    def __init__(self, text: str, home: Path) -> None:
        self.text, self.home = text, home
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
        self.record = lifecycle.up(self.spec, wait_s=120.0, on_progress=lambda _status: None)
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
        workers = [w for w in self.status().workers if w.stage == stage and w.pid]
        worker = workers[index % len(workers)]
        os.kill(worker.pid, signal.SIGKILL)
        return worker.id

    def processes(self) -> list[psutil.Process]:
        """Every process of this service that is alive."""
        found = []
        marker = str(self.where.root)
        for process in psutil.process_iter(["cmdline", "status"]):
            if any(marker in part for part in process.info["cmdline"] or []):
                found += [process, *process.children(recursive=True)]
        return found

    async def images(self, seeds: list[int], prompt: str = "a red circle") -> dict[int, bytes]:
        """Ask for one picture a seed, all at once; the bytes by seed. Retries while the head is away."""
        async with httpx.AsyncClient(base_url=self.url, timeout=120.0) as client:
            made = await asyncio.gather(*(self._image(client, seed, prompt) for seed in seeds))
        return dict(zip(seeds, made, strict=True))

    async def _image(self, client: httpx.AsyncClient, seed: int, prompt: str) -> bytes:
        body = {"prompt": prompt, "size": "64x64", "seed": seed, "response_format": "url"}
        headers = {"Idempotency-Key": f"{prompt}-{seed}"}
        for _ in range(200):
            try:
                answer = await client.post("/v1/images/generations", json=body, headers=headers)
                if answer.status_code == 200:
                    content = await client.get(answer.json()["data"][0]["url"])
                    if content.status_code == 200:
                        return content.content
                elif answer.status_code < 500:
                    raise AssertionError(answer.text)
            except httpx.TransportError:
                pass
            await asyncio.sleep(0.1)  # the head is being restarted: this is what a client does
        raise AssertionError(f"no picture for seed {seed}")


@contextmanager
def service(home: Path, text: str) -> Iterator[Service]:
    """Up, and down whatever happens."""
    before = os.environ.get("DISAGCTL_HOME")
    os.environ["DISAGCTL_HOME"] = str(home)
    running: Service | None = None
    try:
        running = Service(text, home)
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
