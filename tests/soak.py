"""``python -m tests.soak --minutes N --seed S``: real processes under load while things are killed at random.

Prints a line a round and ends with 1 at the first request that is lost, doubled or different from the fault-free run.
"""

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from tests.integration.harness import SYNTHETIC, Service, service

REQUESTS = 40


def kill_worker(running: Service, dice: random.Random) -> str:
    """SIGKILL one worker."""
    return f"killed {running.kill_worker(dice.choice(['encode', 'denoise', 'decode']), dice.randrange(8))}"


def kill_stage(running: Service, dice: random.Random) -> str:
    """SIGKILL every worker of a stage."""
    stage = dice.choice(["encode", "denoise", "decode"])
    for worker in running.workers(stage):
        os.kill(worker.pid, signal.SIGKILL)
    return f"killed all of {stage}"


def kill_head(running: Service, dice: random.Random) -> str:
    """SIGKILL the head, and bring it up again after a while."""
    running.kill_head()
    time.sleep(dice.random() * 2)
    running.up()
    return "killed the head"


def kill_agent(running: Service, dice: random.Random) -> str:
    """SIGKILL the agent: its workers go with it."""
    agents = [p for p in running.processes() if "stages.agent" in p.cmdline()]
    dice.choice(agents).kill()
    return "killed the agent"


def stop_worker(running: Service, dice: random.Random) -> str:
    """SIGSTOP a worker for longer or shorter than its lease."""
    worker = dice.choice(running.workers(dice.choice(["encode", "denoise", "decode"])))
    seconds = dice.choice([0.5, 3.0, 8.0])
    os.kill(worker.pid, signal.SIGSTOP)
    time.sleep(seconds)
    if psutil.pid_exists(worker.pid):
        os.kill(worker.pid, signal.SIGCONT)
    return f"stopped {worker.id} for {seconds:g} s"


def stop_agent(running: Service, dice: random.Random) -> str:
    """SIGSTOP the agent: its workers are silent to nobody but the lease."""
    agent = dice.choice([p for p in running.processes() if "stages.agent" in p.cmdline()])
    agent.suspend()
    time.sleep(dice.choice([1.0, 8.0]))
    agent.resume()
    return "stopped the agent"


FAULTS: tuple[Callable[[Service, random.Random], str], ...] = (
    kill_worker, kill_worker, kill_worker, kill_stage, kill_head, kill_agent, stop_worker, stop_agent,
)  # fmt: skip


def soak(seconds: float, seed: int) -> int:
    """Rounds of requests under faults; returns how many rounds passed. Raises AssertionError."""
    dice = random.Random(seed)
    text = SYNTHETIC.format(
        name="soak",
        encode_bytes=200_000,
        denoise_bytes=300_001,
        artifact_bytes=100_000,
        mode=dice.choice(["auto", "zmq"]),
    )
    end, rounds = time.monotonic() + seconds, 0
    with tempfile.TemporaryDirectory() as home, service(Path(home), text) as running:
        expected = running.images(range(REQUESTS), "fault-free")
        while time.monotonic() < end:
            done: list[str] = []
            with running.under_way(range(REQUESTS), f"round-{rounds}") as pictures:
                for _ in range(dice.randrange(1, 4)):
                    time.sleep(dice.random())
                    try:
                        done.append(dice.choice(FAULTS)(running, dice))
                    except (ProcessLookupError, psutil.NoSuchProcess, IndexError, ZeroDivisionError):
                        continue  # what was to be hit is gone already, or not back yet
                assert pictures.result() == expected, f"round {rounds}, seed {seed}"
            rounds += 1
            accepted = running.until(lambda s: s.state == "ready").requests.accepted
            assert accepted == REQUESTS * (rounds + 1), f"{accepted} requests for {rounds + 1} rounds"
            print(f"round {rounds}: {'; '.join(done)}", flush=True)
    return rounds


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    rounds = soak(args.minutes * 60, args.seed)
    print(f"{rounds} passed, 0 failed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
