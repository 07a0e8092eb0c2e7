"""``python -m bench``: every benchmark, one after another; prints one JSON object a figure.

Each part runs in a process of its own, so that none measures what another left behind. What cannot run here (no root for
network namespaces, no Ray Serve) is left out with a note. Exits 1 when a part fails or a bar is missed.
"""

import argparse
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from bench import report, twohosts
from bench.figures import Figure

LIMIT_S: Final = 1800.0  # of a part
SECONDS: Final = 4.0  # meant to have everything done in eight minutes, or twenty-five with --long
LONG_EFFICIENCY_S: Final = 600.0
LONG_OVERLOAD_S: Final = 300.0


class Part(msgspec.Struct, frozen=True):
    """A module of this package, its arguments, and the figures that can be asked for by name."""

    module: str
    figures: tuple[str, ...]
    arguments: tuple[str, ...] = ()
    missing: str = ""  # why it cannot run here

    def wanted(self, names: list[str]) -> bool:
        """Whether somebody asked for it or one of its figures; nobody asked for anything: yes."""
        return not names or self.module in names or any(figure in names for figure in self.figures)


def parts(seconds: float, *, long: bool) -> list[Part]:
    """Everything there is, with durations."""
    span = ("--seconds", str(seconds))
    overload_s = LONG_OVERLOAD_S if long else 3 * seconds
    clean = ("--clean", str(LONG_EFFICIENCY_S)) if long else ()
    no_hosts = "" if twohosts.available() else "two hosts are network namespaces, which take root, ip and /dev/net/tun"
    hot = (
        "throughput_c64", "latency_c1_p50_ms", "http_throughput_c64", "throughput_c64_vs_durable_hub",
        "latency_c1_vs_durable_hub", "throughput_c64_vs_ray", "handoff_8mib_vs_ray", "handoff_8mib_vs_hub",
    )  # fmt: skip
    return [
        Part("hotpath", hot, span),
        Part("fleet_load", ("dispatch_p99_ms", "head_cores", "head_mb"), ("--seconds", str(2 * seconds))),
        Part("worker_memory", ("worker_mb",), span),
        Part(
            "pipeline",
            ("efficiency_161", "jitter_sync_kept", "jitter_async_kept"),
            ("--seconds", str(2 * seconds), *clean),
        ),
        Part("transports", ("auto_vs_best",)),
        Part("wan", ("wan_bound",), ("--seconds", str(3 * seconds)), no_hosts),
        Part("cache", ("cache_encode_share",)),
        Part("batches", ("batch_throughput", "batch_size")),
        Part("overload", ("rss_growth",), ("--seconds", str(overload_s))),
        Part("whole", ("disaggregated_vs_whole_fits", "disaggregated_vs_whole_tight"), ("--seconds", str(3 * seconds))),
    ]


def figures_of(part: Part) -> Iterator[Figure]:
    """Run it; its figures as it prints them. Raises RuntimeError when it fails."""
    command = [sys.executable, "-m", f"bench.{part.module}", *part.arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        limit = threading.Timer(LIMIT_S, process.kill)
        limit.start()
        for line in process.stdout:
            if line.startswith("{"):
                yield msgspec.json.decode(line, type=Figure)
        limit.cancel()
    if process.returncode:
        msg = f"it ended with {process.returncode}"
        raise RuntimeError(msg)


def run(chosen: list[Part]) -> tuple[list[Figure], list[str]]:
    """Print the figures as they come; all of them, and the parts that failed."""
    found: list[Figure] = []
    failed: list[str] = []
    for part in chosen:
        if part.missing:
            print(f"{part.module} is left out: {part.missing}", file=sys.stderr)
            continue
        try:
            for figure in figures_of(part):
                print(figure.line(), flush=True)
                found.append(figure)
        except RuntimeError as err:
            print(f"{part.module} failed: {err}", file=sys.stderr)
            failed.append(part.module)
    return found, failed


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument(
        "--seconds", type=float, default=SECONDS, help="duration of a load; some take two or three of them"
    )
    parser.add_argument("--long", action="store_true", help="efficiency over ten minutes, overload over five")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="these parts or figures")
    parser.add_argument("--write", type=Path, metavar="FILE", help="also write a page with pictures; not with --only")
    args = parser.parse_args()
    every = parts(args.seconds, long=args.long)
    known = {name for part in every for name in (part.module, *part.figures)}
    if unknown := [name for name in args.only if name not in known]:
        parser.error(f"nothing is called {', '.join(unknown)}; there are {', '.join(sorted(known))}")
    machine = report.machine()
    found, failed = run([part for part in every if part.wanted(args.only)])
    if args.write and args.only:
        print(f"{args.write} is not written: these are not all figures", file=sys.stderr)
    elif args.write:
        report.write(args.write, found, machine, args.seconds, long=args.long)
    missed = [figure.figure for figure in found if not figure.met]
    if missed:
        print(f"short of the bar: {', '.join(missed)}", file=sys.stderr)
    return 1 if missed or failed else 0


if __name__ == "__main__":
    sys.exit(main())
