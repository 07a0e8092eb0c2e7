"""A head that only has an administration socket, and does what the test tells it. Also to look at the live view with:

python -m tests.cli.fake_admin FOLDER        # then: DISAGCTL_HOME=FOLDER disagctl status demo -w
"""

import json
import os
import random
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingUnixStreamServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec
import xxhash

from disagctl.state import ServicePaths, ServiceRecord, write_record
from disagctl.views import (
    EventView,
    HeadView,
    ItemView,
    JobError,
    JobView,
    NodeView,
    RequestCounts,
    StageView,
    StatusView,
    WorkerView,
)

WHY = "loading weights \x1b[31m"
PICTURE = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 50


def job_view(name: str = "demo", n: int = 1, **changes: Any) -> JobView:
    job_id = f"img_{name}_{'ab' * 16}"
    digest = f"{xxhash.xxh3_64_intdigest(PICTURE):016x}"
    items = [
        ItemView(job_id if i == 0 else f"{job_id}.{i}", "queued", 7 + i, "image/png", len(PICTURE), digest)
        for i in range(n)
    ]
    job = JobView(job_id, "image", "m", "queued", 0, 1000.0, {"prompt": "x"}, items)
    return msgspec.structs.replace(job, **changes)


def progress(final: str = "succeeded", n: int = 1, error: JobError | None = None) -> list[JobView]:
    """A request's life, as a poller sees it."""
    views = [
        job_view(n=n),
        job_view(n=n, status="running", stage="encode", progress=3),
        *(job_view(n=n, status="running", stage="denoise", step=i, steps=4, progress=5 + 20 * i) for i in range(4)),
        job_view(n=n, status=final, progress=100 if final == "succeeded" else 40, completed_at=1001.5, error=error),
    ]
    for version, view in enumerate(views):
        view.version = version
    for item in views[-1].items:
        item.status = final  # type: ignore[assignment]
    return views


class FakeHead:
    """Answers from ``answers`` (path → status, document); requests as in ``life``."""

    def __init__(self, home: Path, name: str = "demo") -> None:
        self.where = ServicePaths(home / "services" / name)
        self.where.make()
        home.chmod(0o700)
        record = ServiceRecord(
            name, "cafe", 1.0, "127.0.0.1", 8460, 1, 2, 3, str(home / "shm"), ["local"], head_pid=os.getpid()
        )
        write_record(self.where, record)
        self.name = name
        self.random = random.Random(1)
        self.started_at = time.time()
        self.answers: dict[str, tuple[int, Any]] = {}
        self.calls: list[tuple[str, str, Any]] = []
        self.life = progress()
        self.picture = PICTURE
        self.events = [EventView(self.started_at, "head_started", "incarnation 1", 1)]
        self._start()

    def _start(self) -> None:
        head = self

        class Handler(_Handler):
            fake = head

        fd = os.open(self.where.root, os.O_RDONLY)
        self.where.admin_socket.unlink(missing_ok=True)
        self.server = _Server(f"/proc/self/fd/{fd}/admin.sock", Handler)
        os.close(fd)
        self._thread = threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self._thread.join()
        self.where.admin_socket.unlink(missing_ok=True)

    def status(self) -> StatusView:
        rng, now = self.random, time.time()
        queued = rng.randrange(12)
        stages = [
            StageView("m", "encode", 1, 1, queued=queued // 3, busy=0.2, seconds_per_request=0.05, p95_s=0.08),
            StageView("m", "denoise", 3, 2, 1, 0, queued, 4, rng.choice([0.5, 1.0]), 12.5, 31.0, 0.97),
            StageView("m", "decode", 1, 1, busy=rng.random(), seconds_per_request=1.25, p95_s=2.5),
        ]
        workers = [
            WorkerView("n1.m.encode.0.1", "n1", "m", "encode", "ready", 11, False, 0, 420 << 20, 3.1),
            WorkerView("n1.m.denoise.0.1", "n1", "m", "denoise", "busy", 12, True, 0, 11 << 30, 41.0),
            WorkerView("n2.m.denoise.1.1", "n2", "m", "denoise", "ready", 13, False, 0, 11 << 30, 43.2),
            WorkerView("n2.m.denoise.2.1", "n2", "m", "denoise", "loading", 14, False, 1, 2 << 30, None, WHY),
            WorkerView("n1.m.decode.0.1", "n1", "m", "decode", "ready", 15, False, 1, 900 << 20, 2.0),
        ]
        nodes = [
            NodeView("n1", "lambda", "lambda us-east-1 gpu_2x_a6000", "up", 640.0, 1.6),
            NodeView("n2", "runpod", "runpod EU 2×L40S spot", "up", 120.0, 1.24),
        ]
        if rng.random() < 0.3:
            self.events.append(EventView(now, "scale", "denoise 2 → 3: queue of 9 for 30 s", len(self.events) + 1))
        return StatusView(
            self.name, "degraded", "http://127.0.0.1:8460", HeadView(1, "host", "0.1.0", self.started_at), 2.84, 0.31,
            {"max_usd_per_hour": 4.0}, stages, nodes, workers, [], RequestCounts(99, queued, 4, 80, 2, 1), self.events[-20:],
            rng.uniform(4, 14), 44.0,
        )  # fmt: skip


class _Server(ThreadingUnixStreamServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64


class _Handler(BaseHTTPRequestHandler):
    fake: FakeHead
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""

    def address_string(self) -> str:
        return "unix"

    def do_GET(self) -> None:
        self._answer("GET")

    def do_POST(self) -> None:
        self._answer("POST")

    def do_DELETE(self) -> None:
        self._answer("DELETE")

    def _answer(self, method: str) -> None:
        url = urlsplit(self.path)
        path, query = url.path.removeprefix("/admin/v1"), {k: v[0] for k, v in parse_qs(url.query).items()}
        data = self.rfile.read(int(self.headers.get("content-length") or 0))
        self.fake.calls.append((method, path, json.loads(data) if data else None))
        told = self.fake.answers.get(f"{method} {path}")
        if told is not None:
            self._send(told[0], json.dumps(told[1]).encode())
        elif path == "/status/stream":
            self._stream(float(query["interval_s"]))
        elif path.endswith("/content"):
            self._send(200, self.fake.picture, "image/png")
        else:
            self._send(200, msgspec.json.encode(self._document(method, path, query)))

    def _document(self, method: str, path: str, query: dict[str, str]) -> Any:
        life = self.fake.life
        if path == "/status":
            return self.fake.status()
        if path == "/requests":
            return life[0]
        if path.startswith("/requests/") and method == "DELETE":
            return job_view(status="cancelled")
        if path.startswith("/requests/"):
            return life[min(int(query.get("version", len(life))) + 1, len(life) - 1)]
        return {"/token": {"token": "s3cret"}, "/scale": {"counts": {}}}[path]

    def _send(self, status: int, body: bytes, mime: str = "application/json") -> None:
        self.send_response(status)
        self.send_header("content-type", mime)
        self.send_header("content-length", str(len(body)))
        if status == 429:
            self.send_header("retry-after", "12")
        self.end_headers()
        self.wfile.write(body)

    def _stream(self, interval_s: float) -> None:
        self.send_response(200)
        self.send_header("connection", "close")
        self.end_headers()
        self.close_connection = True
        try:
            while True:
                self.wfile.write(msgspec.json.encode(self.fake.status()) + b"\n")
                time.sleep(interval_s)
        except OSError:
            return


if __name__ == "__main__":
    FakeHead(Path(sys.argv[1]))
    print("serving; Ctrl-C ends it")
    threading.Event().wait()
