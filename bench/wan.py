"""Two hosts, 20 ms and 200 Mbit/s apart: does the hand-off fill the link? ``python -m bench.wan [--seconds N]``

Real worker processes, one on each host, under the real engine and ledger; 8 MiB cross for each request. Only the agents
are left out: this process starts the workers. Needs root.
"""

import argparse
import asyncio
import itertools
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import msgspec

from bench.figures import Figure, rounded
from bench.handoff import keys
from bench.twohosts import Host, Link, available, two_hosts
from disagctl.engine import Engine
from disagctl.hub import Hub
from disagctl.keys import KeyPair
from disagctl.roster import Roster
from disagctl.settings import use_fast_loop
from planner.domain import Role, TaskRef
from planner.run import effects as fx
from planner.run.book import Request
from planner.run.ledger import Ledger
from stages.boot import WorkerBoot
from stages.protocol import PROTOCOL_VERSION, AgentHello, ModelSource

TENSOR_BYTES = 8 << 20
STAGE_S = 0.05
STAGES = ("encode", "decode")
OPTIONS = {"encode": {"seconds": STAGE_S, "out_bytes": TENSOR_BYTES}, "decode": {"seconds": STAGE_S}}
IN_FLIGHT = 24
WARM_S = 6.0
PROBE_BYTES = 48 << 20
TICK_S = 0.25


class Desk:
    """Keeps ``IN_FLIGHT`` requests going and notes when each ends."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._names = (f"r{i}" for i in itertools.count())
        self.ended: list[float] = []

    def submit(self) -> None:
        payload = b'{"prompt": "x", "seed": 1}'
        self._engine.ledger.submit(Request(next(self._names), "m", STAGES, payload, 0, self._engine.clock()))

    def publish(self, effect: fx.Publish) -> None:
        asyncio.get_running_loop().call_soon(self._published, effect.ref.request)

    def _published(self, request: str) -> None:
        self._engine.ledger.published(request)
        self.ended.append(time.perf_counter())
        self.submit()
        self._engine.act()

    def finish(self, effect: fx.Finish) -> None:
        raise RuntimeError(f"{effect.request} ended as {effect.outcome}: {effect.message}")

    def progress(self, request: str) -> None:
        """Nobody watches."""

    def event(self, kind: str, why: str) -> None:
        print(f"{kind}: {why}", file=sys.stderr)

    def discard_upload(self, ref: TaskRef) -> None:
        """There are none."""


@contextmanager
def worker(host: Host, stage: str, hub: str, head_key: str, pair: tuple[str, str], root: Path) -> Iterator[None]:
    """A worker process on the host, named as its agent would."""
    node = f"n{STAGES.index(stage)}"
    boot = WorkerBoot(
        worker=f"{node}.cpu0.1", node=node, host=host.name, hub=hub, data=hub, head_key=head_key,
        public=pair[0], secret=pair[1], shm_dir=str(root), advertise=host.address, transport="auto", pipeline="async",
        prefetch=2,
    )  # fmt: skip
    with subprocess.Popen(host.command(sys.executable, "-m", "stages.worker"), stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        process.stdin.write(msgspec.json.encode(boot) + b"\n")
        process.stdin.flush()
        try:
            yield
        finally:
            process.stdin.close()


async def requests_per_s(here: Host, there: Host, seconds: float) -> float:
    """Requests a second once the pipeline is full, encode here and decode there."""
    head = KeyPair(*keys())
    pairs = {stage: keys() for stage in STAGES}
    wanted = {Role("m", stage): 1 for stage in STAGES}
    source = ModelSource("m", "synthetic", options=msgspec.json.encode(OPTIONS))
    engine = Engine(Ledger(1), Roster(wanted), 1, dict.fromkeys(wanted, source), 2)
    desk = Desk(engine)
    with socket.socket() as probe:
        probe.bind((here.address, 0))
        port = probe.getsockname()[1]
    hub = Hub(here.address, port, head, engine)
    engine.sender, engine.desk = hub, desk
    hub.allow({pairs[stage][0]: f"n{i}" for i, stage in enumerate(STAGES)})
    engine.set_peers(tuple(pair[0] for pair in pairs.values()))
    with ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="disagctl-bench-", dir="/dev/shm")))
        hub.start()
        stack.callback(hub.close)
        for index, host in enumerate((here, there)):  # in this order, so that the first is given the first stage
            engine.receive(f"n{index}", [AgentHello(PROTOCOL_VERSION, f"n{index}", host.name, 0, 1, 0)])
        for stage, host in zip(STAGES, (here, there), strict=True):
            endpoint = f"tcp://{here.address}:{port}"
            stack.enter_context(worker(host, stage, endpoint, head.public, pairs[stage], root))
        for _ in range(IN_FLIGHT):
            desk.submit()
        begin = time.perf_counter() + WARM_S
        while time.perf_counter() < begin + seconds:
            engine.tick()
            await asyncio.sleep(TICK_S)
    counted = [at for at in desk.ended if at >= begin]
    return (len(counted) - 1) / (counted[-1] - counted[0])


def raw_bytes_per_s(here: Host, there: Host) -> float:
    """What one plain TCP connection gets through, for comparison."""
    script = (
        f"import socket; s = socket.create_server(('{there.address}', 0)); print(s.getsockname()[1], flush=True)\n"
        "c, _ = s.accept(); n = 0\n"
        f"while n < {PROBE_BYTES}: n += len(c.recv(1 << 20))\n"
        "c.send(b'x')"
    )
    with subprocess.Popen(there.command(sys.executable, "-c", script), stdout=subprocess.PIPE, text=True) as sink:
        assert sink.stdout is not None
        with socket.create_connection((there.address, int(sink.stdout.readline()))) as sock:
            begin = time.perf_counter()
            threading.Thread(target=sock.sendall, args=(bytes(PROBE_BYTES),), daemon=True).start()
            sock.recv(1)
            return PROBE_BYTES / (time.perf_counter() - begin)


def inside(here: Host, there: Host, seconds: float) -> tuple[float, float]:
    """(requests a second, bytes a second of plain TCP); runs in the first host."""
    use_fast_loop()
    raw = raw_bytes_per_s(here, there)
    return asyncio.run(requests_per_s(here, there, seconds)), raw


def measure(seconds: float, link: Link | None = None) -> list[Figure]:
    """``wan_bound``: the rate over what link and stages allow."""
    link = link or Link()
    with two_hosts(link) as (here, there):
        argv = [
            sys.executable,
            "-m",
            "bench.wan",
            "--inside",
            *(msgspec.json.encode(h).decode() for h in (here, there)),
        ]
        done = subprocess.run(
            here.command(*argv, "--seconds", str(seconds)), stdout=subprocess.PIPE, check=True, env=dict(os.environ)
        )
    rate, raw = msgspec.json.decode(done.stdout, type=tuple[float, float])
    bound = min(link.bytes_per_s / TENSOR_BYTES, 1 / STAGE_S)
    share = rate * TENSOR_BYTES / raw
    return [
        Figure("wan_bound", rounded(rate / bound), "fraction", 0.95, "higher", "the bound, requests/s", rounded(bound)),
        Figure("wan_vs_tcp", rounded(share), "fraction", None, "higher", "plain TCP, bytes/s", rounded(raw)),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.wan", description=__doc__)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--inside", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.inside:
        hosts = [msgspec.json.decode(text, type=Host) for text in args.inside]
        print(msgspec.json.encode(inside(hosts[0], hosts[1], args.seconds)).decode())
        return
    if not available():
        sys.exit("error: two hosts are made of network namespaces — that takes root, ip and /dev/net/tun")
    for figure in measure(args.seconds):
        print(figure.line(), flush=True)


if __name__ == "__main__":
    main()
