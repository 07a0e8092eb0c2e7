"""A node's agent: ``python -m stages.agent BOOTSTRAP.json``. Starts the workers the head wishes for and vouches for them.

It never imports torch, so its heartbeat goes on whatever the workers do, and it outlives its head: work in flight goes on
while the head is restarted. Only after ``dead_man_s`` without one does it end the workers and itself.
"""

import logging
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, Final

import msgspec
import psutil
import zmq

from stages import hardware, notices
from stages.boot import Bootstrap, Enrolled, WorkerBoot
from stages.enrol import EnrolError, enrol
from stages.link import Link
from stages.logfile import LogFile
from stages.protocol import (
    HEARTBEAT_S,
    PROTOCOL_VERSION,
    AgentBeat,
    AgentHello,
    AgentMessage,
    AgentOrder,
    Knock,
    Notice,
    Peers,
    Shutdown,
    Welcome,
    Who,
    Wishes,
    WorkerVitals,
)
from stages.reach import Doorbell
from stages.recorder import read_record
from stages.settings import worker_environment
from stages.slots import SlotBook, Start
from stages.transport import mooncake
from stages.transport.relay import RelayError, check_store, remove_prefix
from stages.transport.segments import remove_worker

log = logging.getLogger("stages.agent")

ENROL_TRIES: Final = 30
GRACE_S: Final = 3.0  # between asking a worker to end and ending it
POLL_S: Final = 0.1


class Process:
    """A worker process and its log."""

    def __init__(self, boot: WorkerBoot, slot: str, log_path: Path) -> None:
        self.worker, self.slot = boot.worker, slot
        self.log = LogFile(log_path)
        self.recorder = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115  # lives as long as we do
        boot = msgspec.structs.replace(boot, recorder_fd=self.recorder.fileno())
        self.popen = subprocess.Popen(  # our own interpreter and module
            [sys.executable, "-m", "stages.worker"],
            stdin=subprocess.PIPE,
            stdout=self.log.fd,
            stderr=self.log.fd,
            env=worker_environment(boot.gpus),
            pass_fds=(self.recorder.fileno(),),
        )
        self._ps = psutil.Process(self.popen.pid)
        assert self.popen.stdin is not None  # noqa: S101  # we asked for a pipe
        try:
            self.popen.stdin.write(msgspec.json.encode(boot) + b"\n")
            self.popen.stdin.flush()
        except BrokenPipeError:
            log.warning("worker %s ended before it could be told what to do", boot.worker)

    def vitals(self) -> WorkerVitals:
        """What can be seen from outside."""
        code = self.popen.poll()
        if code is not None:
            computing = read_record(self.recorder.fileno())
            return WorkerVitals(self.worker, self.slot, self.popen.pid, "exited", code, computing=computing)
        try:
            stopped = self._ps.status() in (psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP)
            rss = int(self._ps.memory_info().rss)
        except psutil.Error:
            stopped, rss = False, 0
        return WorkerVitals(self.worker, self.slot, self.popen.pid, "stopped" if stopped else "running", None, rss)

    def end(self) -> None:
        """Ask it to end; harmless when it has."""
        if self.popen.stdin is not None and not self.popen.stdin.closed:
            try:
                self.popen.stdin.close()
            except BrokenPipeError:
                log.debug("worker %s was gone already", self.worker)

    def kill(self) -> None:
        """End it now, also when it is stopped."""
        if self.popen.poll() is None:
            self.popen.kill()


class Agent:
    """One node."""

    def __init__(self, boot: Bootstrap, enrolled: Enrolled, context: "zmq.Context[Any]", keys: tuple[str, str]) -> None:
        self.boot, self.enrolled, self.keys = boot, enrolled, keys
        self.host = hardware.host_id()
        self.trusted, self.note = mooncake_here(boot)
        self.note = self.note or relay_here(boot)
        self.book = SlotBook(boot.node)
        self.processes: dict[str, Process] = {}
        self.head = 0
        self.heard_s = time.monotonic()
        self.running = True
        self.notice = ""  # why this machine will be taken away, once somebody has said that it will
        self.log = LogFile(Path(boot.work_dir) / f"{boot.node}.log")
        self.doorbell = Doorbell(boot.advertise)
        self.link: Link[AgentOrder, AgentMessage] = Link(
            context, enrolled.hub, boot.node, keys, boot.head_key, list[AgentOrder]
        )

    def run(self) -> None:
        """Until the head says shut down, or there has been none for too long."""
        self.link.send([self.hello()])
        next_beat = 0.0
        while self.running:
            self.link.socket.poll(int(POLL_S * 1000))
            self._receive()
            now = time.monotonic()
            ended = self._reap(now)
            self._act(now)
            if self.notice:
                self.link.send([Notice(self.notice)])
                self.notice = ""
            reached = self.doorbell.answers()
            if reached:
                self.link.send(reached)
            if ended or now >= next_beat:
                next_beat = now + HEARTBEAT_S
                self.link.send([AgentBeat(self.head, (*self._vitals(), *ended))])
            if now - self.heard_s > self.boot.dead_man_s:
                log.error("no head for %.0f s: ending", self.boot.dead_man_s)
                self.running = False

    def hello(self) -> AgentHello:
        """Everything the head needs to know of this node."""
        return AgentHello(
            PROTOCOL_VERSION,
            self.boot.node,
            self.host,
            os.getpid(),
            hardware.cpus(),
            hardware.memory_bytes(),
            hardware.gpus(),
            self._vitals(),
            self.note,
            self.doorbell.endpoint,
        )

    def close(self) -> None:
        """End every worker and remove what they left."""
        for process in self.processes.values():
            process.end()
        deadline = time.monotonic() + GRACE_S
        for process in self.processes.values():
            try:
                process.popen.wait(max(0.05, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.popen.wait()
            remove_worker(Path(self.boot.shm_dir), process.worker)
            if self.boot.relay:
                sweep_store(self.boot.relay, process.worker)
        self.doorbell.close()
        self.link.close()

    def _vitals(self) -> tuple[WorkerVitals, ...]:
        return tuple(p.vitals() for p in self.processes.values())

    def _receive(self) -> None:
        orders, lost = self.link.receive()
        if orders:
            self.heard_s = time.monotonic()
        for order in orders:
            match order:
                case Welcome(head=head):
                    lost |= self.head not in (0, head)
                    self.head = head
                case Who():
                    lost = True
                case Wishes(workers=workers):
                    self.book.wish(workers)
                case Shutdown():
                    log.info("the head says shut down")
                    self.running = False
                case Knock(neighbours=neighbours):
                    self.doorbell.knock(neighbours)
                case Peers():
                    pass
        if lost:
            self.link.send([self.hello()])

    def _reap(self, now: float) -> list[WorkerVitals]:
        ended = [p.vitals() for p in self.processes.values() if p.popen.poll() is not None]
        for vitals in ended:
            log.warning("worker %s ended with %s", vitals.worker, vitals.exit_code)
            process = self.processes.pop(vitals.worker)
            process.end()
            process.log.close()
            process.recorder.close()
            self._sweep(vitals.worker)
            self.book.died(vitals.worker, now)
        for log_file in (self.log, *(process.log for process in self.processes.values())):
            log_file.trim()
        return ended

    def _sweep(self, worker: str) -> None:
        """Remove what the dead worker still offered."""
        remove_worker(Path(self.boot.shm_dir), worker)
        if self.boot.relay:  # the store may be slow, and we have a heart to beat
            threading.Thread(target=sweep_store, args=(self.boot.relay, worker), daemon=True).start()

    def _act(self, now: float) -> None:
        for action in self.book.actions(now):
            if isinstance(action, Start):
                self._start(action)
            elif action.worker in self.processes:
                self.processes[action.worker].kill()
            else:
                self.book.died(action.worker, now)

    def _start(self, action: Start) -> None:
        boot = self.boot
        worker = WorkerBoot(
            worker=action.worker,
            node=boot.node,
            host=self.host,
            hub=self.enrolled.hub,
            data=self.enrolled.data,
            head_key=boot.head_key,
            public=self.keys[0],
            secret=self.keys[1],
            shm_dir=boot.shm_dir,
            advertise=boot.advertise,
            transport=boot.transport,
            pipeline=boot.pipeline,
            prefetch=boot.prefetch,
            gpus=action.gpus,
            trusted=self.trusted,
            mooncake=boot.mooncake,
            relay=boot.relay,
            relay_key=self.enrolled.relay_key,
            encoder_cache=boot.encoder_cache,
        )
        path = Path(boot.work_dir) / f"{boot.node}.{action.slot}.log"
        try:
            self.processes[action.worker] = Process(worker, action.slot, path)
        except OSError as err:  # no memory, no processes, a full disk: try again after the pause
            log.error("cannot start worker %s: %s", action.worker, err)
            self.book.died(action.worker, time.monotonic())


def sweep_store(prefix: str, worker: str) -> None:
    """Remove a dead worker's objects. Those that stay go with the whole service's, at its end."""
    try:
        remove_prefix(prefix, worker)
    except RelayError as err:
        log.warning("objects of %s stay in the store: %s", worker, err)


def relay_here(boot: Bootstrap) -> str:
    """Why this node cannot use the store, if there is one that it is to use."""
    if not boot.relay:
        return ""
    try:
        check_store(boot.relay)
    except RelayError as err:
        log.warning("the store cannot be used: %s", err)
        return f"no relay ({err})"
    return ""


def mooncake_here(boot: Bootstrap) -> tuple[tuple[str, ...], str]:
    """The networks in which this node's workers use Mooncake, none where they cannot; and the note that says why not."""
    wanted = boot.transport == "mooncake" or (boot.transport == "auto" and bool(boot.trusted))
    if not wanted:
        return (), ""
    if not mooncake.trusts(boot.trusted, boot.advertise):
        why = f"{boot.advertise} is not in transport.trusted_networks"
    else:
        why = mooncake.probe()
    if not why:
        return boot.trusted, ""
    note = f"no Mooncake ({why}); tensors go over shared memory and zmq"
    log.warning("%s", note)
    return (), note


def at_home(boot: Bootstrap, path: Path) -> Bootstrap:
    """What a machine finds out itself, where its head could not know."""
    return msgspec.structs.replace(
        boot,
        work_dir=boot.work_dir or str(path.absolute().parent),
        advertise=boot.advertise or hardware.address_towards(boot.enrol_endpoint),
    )


def main() -> None:
    """Entry point of the process."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    path = Path(sys.argv[1])
    boot = at_home(msgspec.json.decode(path.read_bytes(), type=Bootstrap), path)
    context: zmq.Context[Any] = zmq.Context()
    public, secret = (key.decode() for key in zmq.curve_keypair())
    try:
        enrolled = enrol(context, boot, public, secret, ENROL_TRIES)
    except EnrolError as err:
        log.error("%s", err)
        context.destroy(0)
        sys.exit(1)
    finally:
        path.unlink(missing_ok=True)  # the token has done its work, or never will
    agent = Agent(boot, enrolled, context, (public, secret))

    def leave(*_: object) -> None:
        agent.running = False

    def warn(*_: object) -> None:
        agent.notice = "signal"

    def heard(why: str) -> None:
        agent.notice = why

    over = threading.Event()
    if boot.spot:
        notices.watch(heard, over)

    signal.signal(signal.SIGTERM, leave)
    signal.signal(signal.SIGUSR1, warn)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    log.info("node %s, pid %d, %d GPU(s)", boot.node, os.getpid(), len(hardware.gpus()))
    try:
        agent.run()
    finally:
        over.set()
        agent.close()
        context.destroy(0)


if __name__ == "__main__":
    main()
