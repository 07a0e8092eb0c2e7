"""Two hosts on one machine: network namespaces joined by a cable with a length and a width. Needs root, ip and /dev/net/tun.

The cable is a process that carries packets between two tun devices, each after its time: netem would do, but not every kernel
has it. TCP on either side is the kernel's own.
"""

import fcntl
import os
import select
import shutil
import struct
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

TUN = Path("/dev/net/tun")
TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
MTU = 9000
QUEUE_S = 0.05  # of packets that wait to be sent; more are dropped


@dataclass(frozen=True, slots=True)
class Link:
    """``delay_ms`` each way: half the round trip."""

    delay_ms: float = 10.0
    mbit_per_s: float = 200.0

    @property
    def bytes_per_s(self) -> float:
        """What it carries."""
        return self.mbit_per_s * 1e6 / 8


@dataclass(frozen=True, slots=True)
class Host:
    """A namespace and its address."""

    name: str
    address: str

    def command(self, *argv: str) -> list[str]:
        """To run something there."""
        return ["ip", "netns", "exec", self.name, *argv]


def available() -> bool:
    """Whether this machine lets us."""
    return os.geteuid() == 0 and shutil.which("ip") is not None and TUN.exists()


class Lane:
    """One direction of the cable."""

    def __init__(self, source: int, target: int, link: Link) -> None:
        self.source, self._target, self._link = source, target, link
        self._under_way: deque[tuple[float, bytes]] = deque()
        self._free_s = 0.0

    def take(self) -> None:
        """Read a packet and put it on its way, or drop it."""
        packet = os.read(self.source, 1 << 16)
        now = time.monotonic()
        if self._free_s - now < QUEUE_S:
            self._free_s = max(now, self._free_s) + len(packet) / self._link.bytes_per_s
            self._under_way.append((self._free_s + self._link.delay_ms / 1e3, packet))

    def deliver(self) -> float:
        """Write what has arrived; seconds until the next one does."""
        while self._under_way:
            wait_s = self._under_way[0][0] - time.monotonic()
            if wait_s > 0:
                return wait_s
            with suppress(OSError):  # the other end is not up yet: a packet is lost
                os.write(self._target, self._under_way.popleft()[1])
        return 1.0


def cable(one: str, two: str, link: Link) -> None:
    """Make both tun devices, say so, and carry packets until standard input ends."""
    ends = []
    for name in (one, two):
        end = os.open(TUN, os.O_RDWR)
        fcntl.ioctl(end, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TUN | IFF_NO_PI))
        ends.append(end)
    print("ready", flush=True)
    lanes = {end: Lane(end, other, link) for end, other in (ends, ends[::-1])}
    stdin = sys.stdin.fileno()
    while True:
        wait_s = min(lane.deliver() for lane in lanes.values())
        ready, _, _ = select.select([*lanes, stdin], [], [], wait_s)
        if stdin in ready:
            return
        for end in ready:
            lanes[end].take()


def _ip(*argv: str) -> None:
    subprocess.run(["ip", *argv], check=True, capture_output=True)


@contextmanager
def two_hosts(link: Link) -> Iterator[tuple[Host, Host]]:
    """Made, and removed whatever happens."""
    tag = f"dis{os.getpid()}"
    one, two = Host(f"{tag}a", "10.213.77.1"), Host(f"{tag}b", "10.213.77.2")
    command = [
        sys.executable, "-m", "bench.twohosts", one.name, two.name, str(link.delay_ms), str(link.mbit_per_s),
    ]  # fmt: skip
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdout.readline()
            for host, peer in ((one, two), (two, one)):
                _ip("netns", "add", host.name)
                _ip("link", "set", host.name, "netns", host.name)
                _ip("-n", host.name, "link", "set", "lo", "up")
                _ip("-n", host.name, "link", "set", host.name, "mtu", str(MTU), "up")
                _ip("-n", host.name, "addr", "add", host.address, "peer", peer.address, "dev", host.name)
            yield one, two
        finally:
            process.stdin.close()
            for host in (one, two):
                subprocess.run(["ip", "netns", "del", host.name], capture_output=True, check=False)


if __name__ == "__main__":
    cable(sys.argv[1], sys.argv[2], Link(float(sys.argv[3]), float(sys.argv[4])))
